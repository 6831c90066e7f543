//! The JSON of an infer request, as it stands.
use super::{
    parameter::Parameters,
    reading::{Keys, Reading},
};
use crate::{
    parameters::{MOST_AXES, MOST_TENSORS, RequestParameters, TensorParameters, Value, too_many},
    tensor::json_in,
};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt, marker::PhantomData};
use xebec_core::{Datatype, InferError};

#[derive(Default)]
pub(super) struct Head<'a> {
    pub(super) parameters: RequestParameters,
    pub(super) inputs: Vec<Input<'a>>,
    pub(super) outputs: Vec<Output>,
}

#[derive(Default)]
pub(super) struct Input<'a> {
    pub(super) name: String,
    pub(super) shape: Option<Vec<i64>>,
    pub(super) datatype: Option<Datatype>,
    pub(super) parameters: TensorParameters,
    pub(super) data: Data<'a>,
}

#[derive(Default)]
pub(super) enum Data<'a> {
    #[default]
    None,
    Parsed(Vec<u8>),
    /// Stood before its datatype or shape.
    Text(&'a RawValue),
}

#[derive(Default)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) parameters: TensorParameters,
}

pub(super) struct HeadSeed<'r> {
    pub(super) reading: &'r Reading,
    /// Set as soon as it is read, so that an error behind it can be echoed with it.
    pub(super) id: &'r mut String,
}

impl<'de> DeserializeSeed<'de> for HeadSeed<'_> {
    type Value = Head<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Head<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeadSeed<'_> {
    type Value = Head<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with 'inputs'")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head<'de>, A::Error> {
        let reading = self.reading;
        let mut head = Head::default();
        let mut given = false;
        let mut keys = Keys::new(reading, &["id", "parameters", "inputs", "outputs"]);
        while let Some(key) = keys.next(&mut map)? {
            match key {
                "id" => *self.id = map.next_value()?,
                "parameters" => {
                    let take = |name: &str, value: &Value<'_>| head.parameters.take(name, value);
                    map.next_value_seed(Parameters { reading, take })?;
                }
                "inputs" => {
                    given = true;
                    head.inputs = map.next_value_seed(List::of("inputs", reading))?;
                }
                _ => head.outputs = map.next_value_seed(List::of("outputs", reading))?,
            }
        }
        if given {
            Ok(head)
        } else {
            Err(reading.refuse(InferError::invalid("the request JSON has no 'inputs'")))
        }
    }
}

/// An object of the protocol, read key by key.
trait Object<'de>: Default {
    const KEYS: &'static [&'static str];
    const EXPECTED: &'static str;

    fn take<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A, reading: &Reading) -> Result<(), A::Error>;

    fn name(&self) -> &str;
}

impl<'de> Object<'de> for Input<'de> {
    const KEYS: &'static [&'static str] = &["name", "shape", "datatype", "parameters", "data"];
    const EXPECTED: &'static str = "an input with 'name', 'shape', 'datatype' and 'data'";

    fn take<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A, reading: &Reading) -> Result<(), A::Error> {
        match key {
            "name" => self.name = map.next_value()?,
            "shape" => self.shape = Some(map.next_value_seed(Axes(reading))?),
            "datatype" => {
                let text: Cow<'de, str> = map.next_value()?;
                let unknown = |error| InferError::invalid(format!("input '{}': {error}", self.name));
                self.datatype =
                    Some(text.parse().map_err(|error| reading.refuse::<A::Error>(unknown(error)))?);
            }
            "parameters" => {
                let take = |key: &str, value: &Value<'_>| self.parameters.take(key, value);
                map.next_value_seed(Parameters { reading, take })?;
            }
            _ => {
                self.data = match (self.datatype, &self.shape) {
                    (Some(datatype), Some(shape)) => {
                        let text_bytes = json_in::UNKNOWN_BYTES;
                        let seed = json_in::Seed { name: &self.name, datatype, shape, reading, text_bytes };
                        Data::Parsed(map.next_value_seed(seed)?)
                    }
                    _ => Data::Text(map.next_value()?),
                };
            }
        }
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl<'de> Object<'de> for Output {
    const KEYS: &'static [&'static str] = &["name", "parameters"];
    const EXPECTED: &'static str = "a requested output with 'name'";

    fn take<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A, reading: &Reading) -> Result<(), A::Error> {
        if key == "name" {
            self.name = map.next_value()?;
            return Ok(());
        }
        let take = |key: &str, value: &Value<'_>| self.parameters.take(key, value);
        map.next_value_seed(Parameters { reading, take })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

struct One<'r, T> {
    reading: &'r Reading,
    read: PhantomData<T>,
}

impl<'de, T: Object<'de>> DeserializeSeed<'de> for One<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Object<'de>> Visitor<'de> for One<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut read = T::default();
        let mut keys = Keys::new(self.reading, T::KEYS);
        while let Some(key) = keys.next(&mut map)? {
            read.take(key, &mut map, self.reading)?;
        }
        if read.name().is_empty() {
            return Err(self
                .reading
                .refuse(InferError::invalid(format!("there is not {} in its place", T::EXPECTED))));
        }
        Ok(read)
    }
}

/// A list of objects, no longer than any request needs.
struct List<'r, T> {
    what: &'static str,
    one: One<'r, T>,
}

impl<'r, T> List<'r, T> {
    fn of(what: &'static str, reading: &'r Reading) -> Self {
        Self { what, one: One { reading, read: PhantomData } }
    }
}

impl<'de, T: Object<'de>> DeserializeSeed<'de> for List<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Object<'de>> Visitor<'de> for List<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.what)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        let reading = self.one.reading;
        while let Some(one) = seq.next_element_seed(One { reading, read: PhantomData })? {
            if all.len() == MOST_TENSORS {
                return Err(reading.refuse(too_many(self.what)));
            }
            all.push(one);
        }
        Ok(all)
    }
}

/// The extents of a shape.
struct Axes<'r>(&'r Reading);

impl<'de> DeserializeSeed<'de> for Axes<'_> {
    type Value = Vec<i64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<i64>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Axes<'_> {
    type Value = Vec<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shape: a list of whole numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<i64>, A::Error> {
        let mut axes = Vec::with_capacity(4);
        while let Some(extent) = seq.next_element()? {
            if axes.len() == MOST_AXES {
                let fault = InferError::invalid(format!("a shape has more than {MOST_AXES} extents"));
                return Err(self.0.refuse::<A::Error>(fault));
            }
            axes.push(extent);
        }
        Ok(axes)
    }
}
