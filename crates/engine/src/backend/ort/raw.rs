//! The only unsafe code of xebec: values over our own buffers, and runs, through ONNX Runtime's C API.
//!
//! The safe API copies outputs and takes `&mut Session`; here inputs are the request's bytes or a buffer bound
//! once, outputs are written where they are read, and one session runs for several threads at a time, which the C
//! API allows.
//!
//! What every proof below leans on:
//! 1. [`Value`] owns its `OrtValue` and releases it once; a null pointer never gets into one.
//! 2. A value over a [`Buffer`] lives inside the same [`Bound`], which drops its values before it moves or frees the
//!    buffer; a value over borrowed bytes carries their lifetime.
//! 3. `api()` is complete and lives for ever once a library is loaded, and nothing here is reachable before that.
#![allow(unsafe_code, reason = "the C API; each block has its proof")]
use ort::{AsPointer as _, session::Session, sys};
use std::{
    ffi::{CStr, CString, c_char, c_void},
    marker::PhantomData,
    ptr::{self, NonNull},
    slice,
};
use xebec_core::{
    Datatype,
    tensor::{bytes_elements, element_count},
};

#[cfg(target_endian = "big")]
compile_error!("tensors are little-endian on the wire and are given to the engine as they are");

/// What ONNX Runtime said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    /// Its code was INVALID_ARGUMENT, so the inputs are to blame.
    pub(super) invalid_argument: bool,
}

/// Turns a status into a result and releases it.
fn check(status: sys::OrtStatusPtr) -> Result<(), Fault> {
    let Some(status) = NonNull::new(status.0) else { return Ok(()) };
    let api = ort::api();
    // SAFETY: `status` came from the API just now, is not null and has not been released.
    let code = unsafe { (api.GetErrorCode)(status.as_ptr()) };
    // SAFETY: as above; the text lives as long as the status.
    let text = unsafe { (api.GetErrorMessage)(status.as_ptr()) };
    // SAFETY: the API returns a NUL-terminated text, and it is copied before the release below.
    let message = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: we own the status and do not use it again.
    unsafe { (api.ReleaseStatus)(status.as_ptr()) };
    Err(Fault { message, invalid_argument: code == sys::OrtErrorCode::ORT_INVALID_ARGUMENT })
}

fn element_type(datatype: Datatype) -> sys::ONNXTensorElementDataType {
    use sys::ONNXTensorElementDataType as T;
    match datatype {
        Datatype::Bool => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        Datatype::Uint8 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        Datatype::Uint16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        Datatype::Uint32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        Datatype::Uint64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        Datatype::Int8 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        Datatype::Int16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        Datatype::Int32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        Datatype::Int64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        Datatype::Fp16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Datatype::Bf16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        Datatype::Fp32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Datatype::Fp64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        Datatype::Bytes => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

/// Memory that is in ordinary reach, as the API wants it named. Made once per model and shared by its streams.
#[derive(Debug)]
pub(super) struct Memory(NonNull<sys::OrtMemoryInfo>);

// SAFETY: a memory info is a constant description that the API only reads.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub(super) fn new() -> Result<Self, Fault> {
        let mut out = ptr::null_mut();
        let kind = sys::OrtAllocatorType::OrtDeviceAllocator;
        // SAFETY: `out` is a place for one pointer.
        check(unsafe {
            (ort::api().CreateCpuMemoryInfo)(kind, sys::OrtMemType::OrtMemTypeDefault, &mut out)
        })?;
        NonNull::new(out).map(Self).ok_or_else(missing)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: we own it; values made with it have copied what they need.
        unsafe { (ort::api().ReleaseMemoryInfo)(self.0.as_ptr()) };
    }
}

fn missing() -> Fault {
    Fault { message: "ONNX Runtime gave no value and no error".into(), invalid_argument: false }
}

/// A tensor of ONNX Runtime; `'a` bounds the bytes it lies over.
#[derive(Debug)]
pub(super) struct Value<'a>(NonNull<sys::OrtValue>, PhantomData<&'a [u8]>);

// SAFETY: a value is a handle without thread affinity; it is only used by the stream that owns it.
unsafe impl Send for Value<'_> {}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: by point 1 we own it and release it once.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) };
    }
}

impl<'a> Value<'a> {
    /// A value over bytes that somebody else owns.
    pub(super) fn over(
        memory: &Memory,
        data: &'a [u8],
        datatype: Datatype,
        shape: &[i64],
    ) -> Result<Self, Fault> {
        let aligned = datatype.size_bytes().is_some_and(|size| data.as_ptr().align_offset(size) == 0);
        if !aligned {
            return Err(Fault {
                message: "bytes that are not aligned for their datatype".into(),
                invalid_argument: false,
            });
        }
        // SAFETY: the bytes live for 'a, which the value carries, are aligned, and no run writes to an input.
        unsafe { Self::at(memory, data.as_ptr().cast_mut(), data.len(), datatype, shape) }
    }

    /// # Safety
    /// `data` must be valid for `len` bytes as long as the value lives, and writable if a run has it as an output.
    unsafe fn at(
        memory: &Memory,
        data: *mut u8,
        len: usize,
        datatype: Datatype,
        shape: &[i64],
    ) -> Result<Self, Fault> {
        let mut out = ptr::null_mut();
        let (info, kind) = (memory.0.as_ptr(), element_type(datatype));
        // SAFETY: by this function's contract for the data; the API copies the shape and checks its size against `len`.
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                info,
                data.cast(),
                len,
                shape.as_ptr(),
                shape.len(),
                kind,
                &mut out,
            )
        };
        check(status)?;
        NonNull::new(out).map(|value| Self(value, PhantomData)).ok_or_else(missing)
    }
}

impl Value<'static> {
    /// A tensor of strings, copied from `BYTES` parts of the wire.
    pub(super) fn strings(parts: &[&[u8]], shape: &[i64]) -> Result<Self, Fault> {
        let mut allocator = ptr::null_mut();
        // SAFETY: `allocator` is a place for one pointer; the default allocator lives for ever.
        check(unsafe { (ort::api().GetAllocatorWithDefaultOptions)(&mut allocator) })?;
        let (mut out, kind) = (ptr::null_mut(), element_type(Datatype::Bytes));
        // SAFETY: the API copies the shape; the allocator is the default one.
        let status = unsafe {
            (ort::api().CreateTensorAsOrtValue)(allocator, shape.as_ptr(), shape.len(), kind, &mut out)
        };
        check(status)?;
        let value = NonNull::new(out).map(|value| Self(value, PhantomData)).ok_or_else(missing)?;
        let elements = parts.iter().flat_map(|part| bytes_elements(part));
        let mut filled = 0;
        for (index, element) in elements.enumerate() {
            let element =
                element.map_err(|fault| Fault { message: fault.to_string(), invalid_argument: true })?;
            value.fill(index, element)?;
            filled = index + 1;
        }
        if Some(filled) == element_count(shape) {
            Ok(value)
        } else {
            Err(Fault {
                message: "the strings are not as many as the shape says".into(),
                invalid_argument: true,
            })
        }
    }

    /// Writes one string, which may hold any byte. The API checks the index.
    fn fill(&self, index: usize, element: &[u8]) -> Result<(), Fault> {
        let mut room: *mut c_char = ptr::null_mut();
        // SAFETY: the value is a tensor of strings that we own; `room` is a place for one pointer.
        let status = unsafe {
            (ort::api().GetResizedStringTensorElementBuffer)(self.0.as_ptr(), index, element.len(), &mut room)
        };
        check(status)?;
        if !element.is_empty() && !room.is_null() {
            // SAFETY: the API has just made room for exactly this many bytes, and nobody else has seen it.
            unsafe { ptr::copy_nonoverlapping(element.as_ptr(), room.cast(), element.len()) };
        }
        Ok(())
    }
}

impl Value<'_> {
    /// Shape and element type.
    pub(super) fn describe(&self) -> Result<Vec<i64>, Fault> {
        let api = ort::api();
        let mut info = ptr::null_mut();
        // SAFETY: the value is a live tensor; `info` is a place for one pointer.
        check(unsafe { (api.GetTensorTypeAndShape)(self.0.as_ptr(), &mut info) })?;
        let mut rank = 0;
        // SAFETY: `info` was just made.
        let counted = check(unsafe { (api.GetDimensionsCount)(info, &mut rank) });
        let mut shape = vec![0; rank];
        // SAFETY: `shape` has room for `rank` extents.
        let read = check(unsafe { (api.GetDimensions)(info, shape.as_mut_ptr(), rank) });
        // SAFETY: we own `info` and do not use it again.
        unsafe { (api.ReleaseTensorTypeAndShapeInfo)(info) };
        counted.and(read).map(|()| shape)
    }

    /// The bytes of a tensor that is not of strings.
    pub(super) fn bytes(&self, len: usize) -> Result<&[u8], Fault> {
        let mut data: *mut c_void = ptr::null_mut();
        // SAFETY: the value is a live tensor; `data` is a place for one pointer.
        check(unsafe { (ort::api().GetTensorMutableData)(self.0.as_ptr(), &mut data) })?;
        if len == 0 || data.is_null() {
            return Ok(&[]);
        }
        // SAFETY: `len` is the size of the tensor's type and shape (the callers compute it from `describe`), and the
        // tensor's memory lives as long as the value and is not written while `self` is borrowed.
        Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
    }

    /// The strings of a tensor, as `BYTES` of the wire.
    pub(super) fn wire_strings(&self, count: usize) -> Result<Vec<u8>, Fault> {
        let api = ort::api();
        let mut total = 0;
        // SAFETY: the value is a live tensor of strings; the API says so if it is not.
        check(unsafe { (api.GetStringTensorDataLength)(self.0.as_ptr(), &mut total) })?;
        let mut text = vec![0u8; total];
        let mut offsets = vec![0usize; count];
        let (out, places) = (text.as_mut_ptr().cast(), offsets.as_mut_ptr());
        // SAFETY: `text` has room for `total` bytes and `offsets` for `count` numbers; the API checks both.
        check(unsafe { (api.GetStringTensorContent)(self.0.as_ptr(), out, total, places, count) })?;
        Ok(to_wire(&text, &offsets))
    }
}

/// Joins strings that lie end to end into length-prefixed elements.
fn to_wire(text: &[u8], offsets: &[usize]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + 4 * offsets.len());
    let ends = offsets.iter().skip(1).copied().chain(std::iter::once(text.len()));
    for (start, end) in offsets.iter().copied().zip(ends) {
        let element = text.get(start..end).unwrap_or_default();
        wire.extend_from_slice(&u32::try_from(element.len()).unwrap_or(u32::MAX).to_le_bytes());
        wire.extend_from_slice(element);
    }
    wire
}

/// A cache line, so that every datatype and every vector load is aligned.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Block([u8; 64]);

/// A growable, aligned run of bytes.
#[derive(Debug, Default)]
struct Buffer(Vec<Block>);

impl Buffer {
    fn capacity_bytes(&self) -> usize {
        self.0.len() * size_of::<Block>()
    }

    /// A buffer that cannot grow is a fault of the run that wants it, not the end of the process.
    fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        // By half again at least, so that batches that grow row by row do not move the buffer each time.
        let wanted = bytes.max(self.capacity_bytes() + self.capacity_bytes() / 2);
        let blocks = wanted.div_ceil(size_of::<Block>()).max(1);
        let room = self.0.try_reserve_exact(blocks.saturating_sub(self.0.len()));
        room.map_err(|_| Fault {
            message: format!("no memory for {wanted} bytes of a tensor"),
            invalid_argument: false,
        })?;
        self.0.resize(blocks, Block([0; 64]));
        Ok(())
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.capacity_bytes();
        // SAFETY: blocks are plain bytes without padding, all initialised, and borrowed as long as the slice.
        unsafe { slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`, shared.
        unsafe { slice::from_raw_parts(self.0.as_ptr().cast(), self.capacity_bytes()) }
    }
}

/// Most shapes for which a [`Bound`] remembers its value.
const REMEMBERED_SHAPES: usize = 128;

/// A buffer with the values that lie over it, one per shape.
#[derive(Debug, Default)]
pub(super) struct Bound {
    // Dropped first: the values point into the buffer.
    values: Vec<(Vec<i64>, Value<'static>)>,
    buffer: Buffer,
}

impl Bound {
    /// Room for `len` bytes, to be written before the run.
    pub(super) fn room(&mut self, len: usize) -> Result<&mut [u8], Fault> {
        if self.buffer.capacity_bytes() < len.max(1) {
            self.values.clear();
            self.buffer.grow(len)?;
        }
        Ok(self.buffer.bytes_mut().get_mut(..len).unwrap_or_default())
    }

    /// Makes or finds the value of `shape` over the buffer's first `len` bytes; [`Self::handle`] of the returned
    /// number is then that value.
    pub(super) fn prepare(
        &mut self,
        memory: &Memory,
        datatype: Datatype,
        shape: &[i64],
        len: usize,
    ) -> Result<usize, Fault> {
        self.room(len)?;
        if let Some(known) = self.values.iter().position(|(known, _)| known == shape) {
            return Ok(known);
        }
        if self.values.len() >= REMEMBERED_SHAPES {
            self.values.clear();
        }
        let data = self.buffer.0.as_mut_ptr().cast();
        // SAFETY: `room` made sure of `len` bytes, which by point 2 outlive the value and do not move under it. Nothing
        // touches them through Rust while a run does: a run borrows the handle and so this `Bound`.
        let value = unsafe { Value::at(memory, data, len, datatype, shape) }?;
        self.values.push((shape.to_vec(), value));
        Ok(self.values.len() - 1)
    }

    /// The value that [`Self::prepare`] gave the number of.
    pub(super) fn handle(&self, number: usize) -> Option<Handle<'_>> {
        self.values.get(number).map(|(_, value)| value.handle())
    }

    /// The first `len` bytes.
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        self.buffer.bytes().get(..len).unwrap_or_default()
    }
}

/// A value that somebody else owns and keeps for `'a`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle<'a>(NonNull<sys::OrtValue>, PhantomData<&'a ()>);

impl Value<'_> {
    pub(super) fn handle(&self) -> Handle<'_> {
        Handle(self.0, PhantomData)
    }
}

/// Settings of a run, made once per model.
#[derive(Debug)]
pub(super) struct RunSettings(NonNull<sys::OrtRunOptions>);

// SAFETY: after they are made, run options are only read.
unsafe impl Send for RunSettings {}
// SAFETY: as above.
unsafe impl Sync for RunSettings {}

impl RunSettings {
    /// Runs after which these arenas give back what they do not use, such as `cpu:0`.
    pub(super) fn shrinking(arenas: &str) -> Result<Self, Fault> {
        let nul =
            |_| Fault { message: "the name of an arena holds a NUL byte".into(), invalid_argument: false };
        let arenas = CString::new(arenas).map_err(nul)?;
        let mut out = ptr::null_mut();
        // SAFETY: `out` is a place for one pointer.
        check(unsafe { (ort::api().CreateRunOptions)(&mut out) })?;
        let made = NonNull::new(out).map(Self).ok_or_else(missing)?;
        let key = c"memory.enable_memory_arena_shrinkage";
        // SAFETY: the options are ours, and both texts end with a NUL and are copied.
        check(unsafe { (ort::api().AddRunConfigEntry)(made.0.as_ptr(), key.as_ptr(), arenas.as_ptr()) })?;
        Ok(made)
    }
}

impl Drop for RunSettings {
    fn drop(&mut self) {
        // SAFETY: we own them, and no run uses them any more: it borrows them.
        unsafe { (ort::api().ReleaseRunOptions)(self.0.as_ptr()) };
    }
}

/// Names as the C API wants them, made once.
#[derive(Debug)]
pub(super) struct Names {
    // Owned here so that the pointers stay good.
    _texts: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead to the texts beside them, which never change.
unsafe impl Send for Names {}
// SAFETY: as above.
unsafe impl Sync for Names {}

impl Names {
    /// `None` if a name has a NUL, which no loaded graph's has.
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Option<Self> {
        let texts: Vec<CString> = names.map(CString::new).collect::<Result<_, _>>().ok()?;
        let pointers = texts.iter().map(|text| text.as_ptr()).collect();
        Some(Self { _texts: texts, pointers })
    }
}

/// The pointers of a run, kept to be used again.
#[derive(Debug, Default)]
pub(super) struct Call {
    names: Vec<*const c_char>,
    inputs: Vec<*const sys::OrtValue>,
    outputs: Vec<*mut sys::OrtValue>,
}

// SAFETY: outside of `run` the vectors are empty; they only keep their capacity.
unsafe impl Send for Call {}

impl Call {
    /// Runs the session. Where an input is `None`, it is left to the graph's default. `outputs` are the places to write to; where there is `None`, ONNX Runtime makes one and it
    /// is returned at that index.
    pub(super) fn run<'a>(
        &mut self,
        session: &Session,
        settings: Option<&RunSettings>,
        (input_names, output_names): (&Names, &Names),
        inputs: impl Iterator<Item = Option<Handle<'a>>>,
        outputs: impl Iterator<Item = Option<Handle<'a>>> + Clone,
        made: &mut Vec<Option<Value<'static>>>,
    ) -> Result<(), Fault> {
        self.names.clear();
        self.inputs.clear();
        let mut places = 0;
        for (given, name) in inputs.zip(&input_names.pointers) {
            places += 1;
            if let Some(handle) = given {
                self.names.push(*name);
                self.inputs.push(handle.0.as_ptr().cast_const());
            }
        }
        self.outputs.clear();
        self.outputs
            .extend(outputs.clone().map(|given| given.map_or(ptr::null_mut(), |handle| handle.0.as_ptr())));
        let counts =
            (places == input_names.pointers.len(), self.outputs.len() == output_names.pointers.len());
        if counts != (true, true) {
            return Err(Fault {
                message: "a run has as many values as the graph has inputs and outputs".into(),
                invalid_argument: false,
            });
        }
        // SAFETY: names and values are as many as said and live through the call, by the handles' lifetime; the session and the settings are live, and the C API
        // allows several runs of one session at a time.
        let status = unsafe {
            (ort::api().Run)(
                session.ptr().cast_mut(),
                settings.map_or(ptr::null(), |settings| settings.0.as_ptr().cast_const()),
                self.names.as_ptr(),
                self.inputs.as_ptr(),
                self.inputs.len(),
                output_names.pointers.as_ptr(),
                self.outputs.len(),
                self.outputs.as_mut_ptr(),
            )
        };
        let outcome = check(status);
        made.clear();
        for (given, after) in outputs.zip(&self.outputs) {
            // What was null and is not is new and ours, also after an error.
            let fresh = if given.is_none() { NonNull::new(*after) } else { None };
            made.push(fresh.map(|value| Value(value, PhantomData)));
        }
        self.names.clear();
        self.inputs.clear();
        self.outputs.clear();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_that_lie_end_to_end_become_length_prefixed() {
        assert_eq!(to_wire(b"abc", &[0, 1, 1]), [1, 0, 0, 0, b'a', 0, 0, 0, 0, 2, 0, 0, 0, b'b', b'c']);
        assert_eq!(to_wire(b"", &[]), [0u8; 0]);
    }

    #[test]
    fn a_buffer_grows_keeps_what_it_had_and_stays_aligned() {
        let mut buffer = Buffer::default();
        buffer.grow(10).unwrap();
        buffer.bytes_mut()[..10].copy_from_slice(b"0123456789");
        buffer.grow(1000).unwrap();
        assert_eq!(&buffer.bytes()[..10], b"0123456789");
        assert!(buffer.capacity_bytes() >= 1000);
        assert_eq!(buffer.bytes().as_ptr().align_offset(64), 0);
        assert!(buffer.grow(isize::MAX as usize / 2).is_err());
        assert_eq!(&buffer.bytes()[..10], b"0123456789");
    }
}
