//! Columns of Apache Arrow: the numbers and texts in them, and those that an answer becomes.
//!
//! Not here: files (`parquet_file`).
use super::{
    answer::{each, texts},
    appended::Appended,
    rows::{Kind, Number},
};
use anyhow::{Context as _, anyhow};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, FixedSizeListArray, Float16Array, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, PrimitiveArray, StringArray, UInt8Array,
    UInt16Array, UInt32Array, UInt64Array,
    cast::AsArray as _,
    types::{
        Date32Type, Date64Type, Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
        Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, Field, TimeUnit};
use half::{bf16, f16};
use std::sync::Arc;
use xebec_core::Datatype;

/// What a column of a type holds.
pub(super) fn kind(datatype: &DataType) -> Kind {
    match datatype {
        DataType::Dictionary(_, values) => kind(values),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Kind::Text,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
            if kind(item.data_type()) == Kind::Number =>
        {
            Kind::List
        }
        DataType::Boolean | DataType::Float16 | DataType::Float32 | DataType::Float64 => Kind::Number,
        datatype if datatype.is_integer() => Kind::Number,
        _ => Kind::Other,
    }
}

/// The numbers of a column; `None` if it is not one of numbers.
pub(super) fn numbers(array: &dyn Array) -> Option<Vec<Option<Number>>> {
    fn of<T: ArrowPrimitiveType>(array: &dyn Array, to: impl Fn(T::Native) -> Number) -> Vec<Option<Number>> {
        array.as_primitive::<T>().iter().map(|value| value.map(&to)).collect()
    }
    macro_rules! whole {
        ($kind:ty) => {
            of::<$kind>(array, |number| Number::Whole(number.into()))
        };
    }
    Some(match array.data_type() {
        DataType::Int8 => whole!(Int8Type),
        DataType::Int16 => whole!(Int16Type),
        DataType::Int32 => whole!(Int32Type),
        DataType::Int64 => whole!(Int64Type),
        DataType::UInt8 => whole!(UInt8Type),
        DataType::UInt16 => whole!(UInt16Type),
        DataType::UInt32 => whole!(UInt32Type),
        DataType::UInt64 => whole!(UInt64Type),
        DataType::Float16 => of::<Float16Type>(array, |number| Number::Real(number.to_f64())),
        DataType::Float32 => of::<Float32Type>(array, |number| Number::Real(number.into())),
        DataType::Float64 => of::<Float64Type>(array, Number::Real),
        DataType::Boolean => {
            array.as_boolean().iter().map(|flag| flag.map(|flag| Number::Whole(flag.into()))).collect()
        }
        DataType::Dictionary(_, _) => spread(array, numbers)?,
        _ => return None,
    })
}

/// The texts of a column, or its bytes; `None` if it has neither.
pub(super) fn bytes(array: &dyn Array) -> Option<Vec<Option<Vec<u8>>>> {
    fn of<'a, T: AsRef<[u8]> + ?Sized + 'a>(
        values: impl Iterator<Item = Option<&'a T>>,
    ) -> Vec<Option<Vec<u8>>> {
        values.map(|value| value.map(|value| value.as_ref().to_vec())).collect()
    }
    Some(match array.data_type() {
        DataType::Utf8 => of(array.as_string::<i32>().iter()),
        DataType::LargeUtf8 => of(array.as_string::<i64>().iter()),
        DataType::Utf8View => of(array.as_string_view().iter()),
        DataType::Binary => of(array.as_binary::<i32>().iter()),
        DataType::LargeBinary => of(array.as_binary::<i64>().iter()),
        DataType::BinaryView => of(array.as_binary_view().iter()),
        DataType::Dictionary(_, _) => spread(array, bytes)?,
        _ => return None,
    })
}

/// The numbers of each row of a column of lists; `None` if it is none.
pub(super) fn lists(array: &dyn Array) -> Option<Vec<Option<Vec<Option<Number>>>>> {
    fn of(rows: impl Iterator<Item = Option<ArrayRef>>) -> Option<Vec<Option<Vec<Option<Number>>>>> {
        rows.map(|row| row.map_or(Some(None), |row| numbers(&row).map(Some))).collect()
    }
    match array.data_type() {
        DataType::List(_) => of(array.as_list::<i32>().iter()),
        DataType::LargeList(_) => of(array.as_list::<i64>().iter()),
        DataType::FixedSizeList(_, _) => of(array.as_fixed_size_list().iter()),
        _ => None,
    }
}

/// The rows of a column that names its values by numbers.
fn spread<T: Clone>(
    array: &dyn Array,
    of: impl Fn(&dyn Array) -> Option<Vec<Option<T>>>,
) -> Option<Vec<Option<T>>> {
    let dictionary = array.as_any_dictionary_opt()?;
    let values = of(dictionary.values())?;
    if values.is_empty() {
        return Some(vec![None; array.len()]);
    }
    let keys = dictionary.normalized_keys().into_iter().enumerate();
    let row = |(row, key): (usize, usize)| {
        if array.is_null(row) { None } else { values.get(key).cloned().flatten() }
    };
    Some(keys.map(row).collect())
}

/// The cells of a column as text, empty where there is no value; `None` if its type has no form as text.
pub(super) fn cells(array: &dyn Array) -> Option<Vec<String>> {
    macro_rules! each_as {
        ($kind:ty, $text:expr) => {{
            let column = array.as_primitive::<$kind>();
            let cell = |row: usize| if column.is_null(row) { None } else { $text(column, row) };
            (0..column.len()).map(|row| cell(row).unwrap_or_default()).collect()
        }};
    }
    fn number<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>, row: usize) -> Option<String>
    where
        T::Native: ToString,
    {
        Some(column.value(row).to_string())
    }
    macro_rules! number {
        ($kind:ty) => {
            each_as!($kind, number)
        };
    }
    macro_rules! moment {
        ($kind:ty) => {
            each_as!($kind, |column: &PrimitiveArray<$kind>, row| Some(
                column.value_as_datetime(row)?.to_string()
            ))
        };
    }
    macro_rules! day {
        ($kind:ty) => {
            each_as!($kind, |column: &PrimitiveArray<$kind>, row| Some(
                column.value_as_date(row)?.to_string()
            ))
        };
    }
    Some(match array.data_type() {
        DataType::Null => vec![String::new(); array.len()],
        DataType::Boolean => array
            .as_boolean()
            .iter()
            .map(|flag| flag.map_or(String::new(), |flag| flag.to_string()))
            .collect(),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => number!(Float16Type),
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::Date32 => day!(Date32Type),
        DataType::Date64 => day!(Date64Type),
        DataType::Timestamp(TimeUnit::Second, _) => moment!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => moment!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => moment!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => moment!(TimestampNanosecondType),
        DataType::Decimal128(_, _) => {
            each_as!(Decimal128Type, |column: &PrimitiveArray<Decimal128Type>, row| Some(
                column.value_as_string(row)
            ))
        }
        DataType::Dictionary(_, _) => {
            let text = |array: &dyn Array| Some(cells(array)?.into_iter().map(Some).collect());
            spread(array, text)?.into_iter().map(Option::unwrap_or_default).collect()
        }
        datatype if kind(datatype) == Kind::Text => {
            let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).ok();
            return bytes(array)?.into_iter().map(text).collect();
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) => {
            let rows: Vec<Option<ArrayRef>> = match array.data_type() {
                DataType::List(_) => array.as_list::<i32>().iter().collect(),
                DataType::LargeList(_) => array.as_list::<i64>().iter().collect(),
                _ => array.as_fixed_size_list().iter().collect(),
            };
            let list = |row: Option<ArrayRef>| match row {
                Some(row) => Some(format!(
                    "[{}]",
                    cells(&row).filter(|_| kind(row.data_type()) == Kind::Number)?.join(",")
                )),
                None => Some(String::new()),
            };
            return rows.into_iter().map(list).collect();
        }
        _ => return None,
    })
}

/// An output as a column, of lists where a row has several values.
///
/// # Errors
/// It is no text.
pub(super) fn column(output: &Appended<'_>) -> anyhow::Result<(Field, ArrayRef)> {
    let tensor = output.tensor;
    macro_rules! numbers {
        ($array:ty, $kind:ty) => {
            Arc::new(<$array>::from(each(&tensor.data, <$kind>::from_le_bytes)))
        };
    }
    let values: ArrayRef = match tensor.datatype {
        Datatype::Bool => {
            Arc::new(BooleanArray::from(tensor.data.iter().map(|byte| *byte != 0).collect::<Vec<_>>()))
        }
        Datatype::Uint8 => numbers!(UInt8Array, u8),
        Datatype::Uint16 => numbers!(UInt16Array, u16),
        Datatype::Uint32 => numbers!(UInt32Array, u32),
        Datatype::Uint64 => numbers!(UInt64Array, u64),
        Datatype::Int8 => numbers!(Int8Array, i8),
        Datatype::Int16 => numbers!(Int16Array, i16),
        Datatype::Int32 => numbers!(Int32Array, i32),
        Datatype::Int64 => numbers!(Int64Array, i64),
        Datatype::Fp16 => numbers!(Float16Array, f16),
        // Arrow has no such type, and one of 32 bits holds every such number.
        Datatype::Bf16 => {
            Arc::new(Float32Array::from(each(&tensor.data, |bytes| bf16::from_le_bytes(bytes).to_f32())))
        }
        Datatype::Fp32 => numbers!(Float32Array, f32),
        Datatype::Fp64 => numbers!(Float64Array, f64),
        Datatype::Bytes => {
            let texts = texts(tensor).with_context(|| {
                format!(
                    "output '{}' is no text; name the outputs that are wanted with --outputs",
                    tensor.name
                )
            })?;
            Arc::new(StringArray::from(texts))
        }
    };
    let values = match output.width {
        1 => values,
        width => {
            let item = Arc::new(Field::new("item", values.data_type().clone(), false));
            let width = i32::try_from(width).map_err(|_| anyhow!("output '{}' is too wide", tensor.name))?;
            Arc::new(FixedSizeListArray::try_new(item, width, values, None)?)
        }
    };
    Ok((Field::new(&output.name, values.data_type().clone(), false), values))
}

#[cfg(test)]
mod tests {
    use super::{super::answer::tests::*, *};
    use arrow_array::{DictionaryArray, LargeStringArray, ListArray, TimestampMillisecondArray};

    #[test]
    fn numbers_texts_and_lists_are_read_with_their_gaps() {
        let wholes = Int32Array::from(vec![Some(1), None]);
        assert_eq!(numbers(&wholes).unwrap(), [Some(Number::Whole(1)), None]);
        let flags = BooleanArray::from(vec![true, false]);
        assert_eq!(numbers(&flags).unwrap()[0], Some(Number::Whole(1)));
        let words = LargeStringArray::from(vec![Some("ä"), None]);
        assert_eq!(bytes(&words).unwrap(), [Some("ä".as_bytes().to_vec()), None]);
        assert!(numbers(&words).is_none() && bytes(&wholes).is_none());
        let named: DictionaryArray<Int32Type> = [Some("a"), None, Some("a")].into_iter().collect();
        assert_eq!(kind(named.data_type()), Kind::Text);
        assert_eq!(cells(&named).unwrap(), ["a", "", "a"]);
        let rows = [Some(vec![Some(1.5f32), Some(2.0)]), None];
        let list = ListArray::from_iter_primitive::<Float32Type, _, _>(rows);
        assert_eq!(
            lists(&list).unwrap(),
            [Some(vec![Some(Number::Real(1.5)), Some(Number::Real(2.0))]), None]
        );
        assert_eq!(cells(&list).unwrap(), ["[1.5,2]", ""]);
    }

    #[test]
    fn moments_are_written_as_people_read_them_and_what_has_no_text_is_told() {
        let moments = TimestampMillisecondArray::from(vec![Some(1_700_000_000_123), None]);
        assert_eq!(cells(&moments).unwrap(), ["2023-11-14 22:13:20.123", ""]);
        let price = arrow_array::Decimal128Array::from(vec![1234]).with_precision_and_scale(9, 2).unwrap();
        assert_eq!(cells(&price).unwrap(), ["12.34"]);
        assert_eq!(kind(moments.data_type()), Kind::Other);
        assert!(cells(&arrow_array::BinaryArray::from(vec![&[0xff][..]])).is_none());
    }

    #[test]
    fn an_output_is_a_column_of_its_type_and_of_lists_where_a_row_has_several() {
        let tensor = reals("p", &[2, 2], &[0.1, 0.9, 0.5, 0.25]);
        let (field, array) = column(&Appended { tensor: &tensor, name: "p".into(), width: 2 }).unwrap();
        assert_eq!((field.name().as_str(), array.len()), ("p", 2));
        assert_eq!(cells(&array).unwrap(), ["[0.1,0.9]", "[0.5,0.25]"]);
        let tensor = wholes("label", &[1, 0]);
        let (_, array) = column(&Appended { tensor: &tensor, name: "label".into(), width: 1 }).unwrap();
        assert_eq!(
            (array.data_type(), cells(&array).unwrap()),
            (&DataType::Int64, vec!["1".into(), "0".into()])
        );
        let tensor = words("image", &[1], &[&[0xff]]);
        assert!(column(&Appended { tensor: &tensor, name: "image".into(), width: 1 }).is_err());
    }
}
