//! Inputs from shared memory and outputs into it.
use super::{FLAG, Region, SharedMemory, Slice, unknown};
use crate::Service;
use std::sync::Arc;
use xebec_core::{InferError, InferRequest, InferResponse, Principal, Verb};

/// What of a request lies in shared memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Inputs, by their place.
    pub(crate) inputs: Vec<(usize, Slice)>,
    /// Where outputs are wanted, by name.
    pub(crate) outputs: Vec<(String, Slice)>,
}

/// How much of shared memory one request may bring, and the flag that says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub(crate) bytes: usize,
    pub(crate) flag: &'static str,
}

/// Where an output goes.
#[derive(Debug)]
pub(crate) struct Place {
    output: String,
    slice: Slice,
    region: Arc<Region>,
}

/// An output that lies in shared memory, as its answer tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) output: String,
    pub(crate) region: String,
    pub(crate) byte_size: u64,
    pub(crate) offset: u64,
}

impl Service {
    /// The regions that tensors of a request may lie in, for a caller who may use them.
    ///
    /// # Errors
    /// Shared memory is not allowed here, or not to this caller.
    pub(crate) fn memory_of_tensors(&self, principal: &Principal) -> Result<&SharedMemory, InferError> {
        let memory = self.0.shared_memory.as_ref().ok_or_else(|| InferError::Unsupported {
            what: "parameter 'shared_memory_region': shared memory is not allowed on this server".into(),
            hint: Some(format!("send the data with the request; the operator can allow it with {FLAG}")),
        })?;
        self.admit(principal, Verb::ShareMemory, None)?;
        Ok(memory)
    }
}

impl Shared {
    /// Reads the inputs, within `most`, and finds the places of the outputs. `memory` is asked for only if something lies
    /// there, `room` counts the memory before it is taken.
    ///
    /// # Errors
    /// There is no shared memory for this caller, a region is not known or too short, two outputs overlap, or there is no room.
    pub(crate) fn fetch<'m>(
        &self,
        memory: impl FnOnce() -> Result<&'m SharedMemory, InferError>,
        request: &mut InferRequest,
        most: Most,
        room: impl FnOnce(usize) -> Result<(), InferError>,
    ) -> Result<Vec<Place>, InferError> {
        if self.inputs.is_empty() && self.outputs.is_empty() {
            return Ok(Vec::new());
        }
        let memory = memory()?;
        let mut found = Vec::with_capacity(self.inputs.len());
        let mut sum = 0u64;
        for (place, slice) in &self.inputs {
            let name = request.inputs.get(*place).map(|input| &*input.name).unwrap_or_default();
            found.push((place, slice, memory.find(slice, &format!("input '{name}'"))?));
            sum = sum.saturating_add(slice.byte_size);
        }
        let sum = usize::try_from(sum).ok().filter(|sum| *sum <= most.bytes).ok_or(InferError::TooLarge {
            what: "data in shared memory",
            limit_bytes: most.bytes as u64,
            flag: most.flag,
        })?;
        room(sum)?;
        for (place, slice, region) in found {
            if let Some(input) = request.inputs.get_mut(*place) {
                input.data = region.read(slice)?;
            }
        }
        self.places(memory)
    }

    fn places(&self, memory: &SharedMemory) -> Result<Vec<Place>, InferError> {
        let mut places: Vec<Place> = Vec::with_capacity(self.outputs.len());
        for (output, slice) in &self.outputs {
            let region = memory.find(slice, &format!("output '{output}'"))?;
            region.reaches(slice)?;
            places.push(Place { output: output.clone(), slice: slice.clone(), region });
        }
        let mut sorted: Vec<&Place> = places.iter().collect();
        sorted.sort_by_key(|place| place.range());
        for pair in sorted.windows(2) {
            let [one, next] = pair else { continue };
            let (key, start, end) = one.range();
            let (next_key, next_start, _) = next.range();
            if key == next_key && next_start < end && start < end {
                let (one, next) = (&one.output, &next.output);
                return Err(InferError::invalid_hint(
                    format!("outputs '{one}' and '{next}' overlap in shared memory"),
                    "give each a place of its own",
                ));
            }
        }
        Ok(places)
    }
}

impl Place {
    /// Of which shared memory, from where to where.
    fn range(&self) -> (&str, u64, u64) {
        let status = &self.region.status;
        let start = self.region.start(&self.slice);
        (status.key.trim_start_matches('/'), start, start.saturating_add(self.slice.byte_size))
    }
}

/// Moves outputs to their places; what is left of them in the answer is what was moved.
///
/// # Errors
/// An output does not fit its place, or the shared memory has been cut. Nothing is written unless all fit.
pub(crate) fn put(places: &[Place], response: &mut InferResponse) -> Result<Vec<Placed>, InferError> {
    let mut all = Vec::with_capacity(places.len());
    for place in places {
        let found = response.outputs.iter_mut().find(|output| *output.name == *place.output);
        let output = found.ok_or_else(|| unknown(&format!("output '{}'", place.output)))?;
        let (name, size, needs) = (&place.output, place.slice.byte_size, output.data.len() as u64);
        if needs > size {
            return Err(InferError::invalid(format!(
                "shared memory size specified with the request for output '{name}' ({size} bytes) should be at least {needs} bytes to hold the results"
            )));
        }
        all.push((place, std::mem::take(&mut output.data)));
    }
    let write = |(place, data): (&Place, bytes::Bytes)| {
        let byte_size = data.len() as u64;
        place.region.write(&Slice { byte_size, ..place.slice.clone() }, &data)?;
        let Slice { region, offset, .. } = place.slice.clone();
        Ok(Placed { output: place.output.clone(), region, byte_size, offset })
    };
    all.into_iter().map(write).collect()
}
