//! The engine alone, as fast as it goes: what a server's figures are set against.
//!
//! ONNX Runtime's C API with inputs and outputs made once, one thread a run, best of five slices of time, each over all
//! threads. Prints one JSON object: rows per second for each number of rows, and the resident memory at the end.
//!
//!     ceiling MODEL.onnx --rows 1,8,32 --free 32 --threads 2 --seconds 0.5
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![allow(unsafe_code, reason = "the C API without anything around it is the ceiling")]
use anyhow::{Context as _, ensure};
use clap::Parser;
use ort::{AsPointer as _, session::Session, sys, value::ValueType};
use std::{
    ffi::CString,
    path::PathBuf,
    ptr,
    sync::Barrier,
    time::{Duration, Instant},
};
use xebec_e2e::server::engine_library;

#[derive(Parser)]
struct Args {
    /// The model.
    model: PathBuf,
    /// Rows of a run; the first axis.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    rows: Vec<i64>,
    /// Extent of other free axes.
    #[arg(long, default_value_t = 1)]
    free: i64,
    /// Threads that run side by side.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// All threads over one session.
    #[arg(long)]
    shared: bool,
    /// Length of one slice.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
}

const SLICES: usize = 5;

/// One input or output: a buffer and a value over it.
struct Place {
    name: CString,
    /// Keeps the value's memory.
    _data: Vec<u64>,
    value: *mut sys::OrtValue,
}

fn check(status: sys::OrtStatusPtr) -> anyhow::Result<()> {
    ensure!(status.0.is_null(), "ONNX Runtime refused a call of the ceiling");
    Ok(())
}

fn place(name: &str, kind: &ValueType, rows: i64, free: i64, whole: i64) -> anyhow::Result<Place> {
    let ValueType::Tensor { ty, shape, .. } = kind else { anyhow::bail!("'{name}' is not a tensor") };
    let extent = |(axis, extent): (usize, &i64)| {
        if *extent >= 0 {
            *extent
        } else if axis == 0 {
            rows
        } else {
            free
        }
    };
    let shape: Vec<i64> = shape.iter().enumerate().map(extent).collect();
    let (size, code) = match ty {
        ort::value::TensorElementType::Float32 => {
            (4, sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
        }
        ort::value::TensorElementType::Int64 => {
            (8, sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64)
        }
        other => anyhow::bail!("the ceiling knows no {other}"),
    };
    let count = usize::try_from(shape.iter().product::<i64>())?;
    let fill = if size == 4 { u64::from_le_bytes([0, 0, 0, 63, 0, 0, 0, 63]) } else { whole.cast_unsigned() };
    let mut data = vec![fill; (count * size).div_ceil(8)];
    let api = ort::api();
    let (mut memory, mut value) = (ptr::null_mut(), ptr::null_mut());
    let kind = sys::OrtAllocatorType::OrtDeviceAllocator;
    // SAFETY: `memory` is a place for one pointer.
    check(unsafe { (api.CreateCpuMemoryInfo)(kind, sys::OrtMemType::OrtMemTypeDefault, &mut memory) })?;
    // SAFETY: the buffer has `count * size` bytes and is kept beside the value; the shape is copied.
    let status = unsafe {
        (api.CreateTensorWithDataAsOrtValue)(
            memory,
            data.as_mut_ptr().cast(),
            count * size,
            shape.as_ptr(),
            shape.len(),
            code,
            &mut value,
        )
    };
    check(status)?;
    Ok(Place { name: CString::new(name)?, _data: data, value })
}

fn session(environment: &ort::environment::Environment, args: &Args) -> anyhow::Result<Session> {
    let builder = Session::builder(environment).map_err(|error| anyhow::anyhow!("{error}"))?;
    let builder = builder.with_intra_threads(1).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut builder = builder.with_inter_threads(1).map_err(|error| anyhow::anyhow!("{error}"))?;
    builder.commit_from_file(&args.model).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Runs a session for five slices; returns the rows a second of each.
fn load(session: &Session, args: &Args, rows: i64, start: &Barrier) -> anyhow::Result<[f64; SLICES]> {
    let inputs: Vec<Place> = session
        .inputs()
        .iter()
        .map(|o| place(o.name(), o.dtype(), rows, args.free, 1))
        .collect::<Result<_, _>>()?;
    let outputs: Vec<Place> = session
        .outputs()
        .iter()
        .map(|o| place(o.name(), o.dtype(), rows, args.free, 0))
        .collect::<Result<_, _>>()?;
    let names = |places: &[Place]| places.iter().map(|place| place.name.as_ptr()).collect::<Vec<_>>();
    let (input_names, output_names) = (names(&inputs), names(&outputs));
    let given: Vec<*const sys::OrtValue> = inputs.iter().map(|place| place.value.cast_const()).collect();
    let mut made: Vec<*mut sys::OrtValue> = outputs.iter().map(|place| place.value).collect();
    let mut run = || {
        // SAFETY: names and values are as many as said and live through the call.
        check(unsafe {
            (ort::api().Run)(
                session.ptr().cast_mut(),
                ptr::null(),
                input_names.as_ptr(),
                given.as_ptr(),
                given.len(),
                output_names.as_ptr(),
                made.len(),
                made.as_mut_ptr(),
            )
        })
    };
    run()?;
    start.wait();
    let slice = Duration::from_secs_f64(args.seconds);
    // All threads change slices at the same times, so that a slice of one is the same slice of the others.
    let all_began = Instant::now();
    let mut rates = [0.0; SLICES];
    for (rate, end) in rates.iter_mut().zip(1..) {
        let (began, mut runs) = (Instant::now(), 0u32);
        while all_began.elapsed() < slice * end {
            run()?;
            runs += 1;
        }
        *rate = f64::from(runs) * rows as f64 / began.elapsed().as_secs_f64();
    }
    Ok(rates)
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let library = engine_library()?;
    let builder = ort::init_from(&library).map_err(|error| anyhow::anyhow!("{error}"))?;
    let environment = builder.with_telemetry(false).build().map_err(|error| anyhow::anyhow!("{error}"))?;
    let count = if args.shared { 1 } else { args.threads };
    let sessions: Vec<Session> =
        (0..count).map(|_| session(&environment, &args)).collect::<Result<_, _>>()?;
    let mut figures = serde_json::Map::new();
    for rows in &args.rows {
        let start = Barrier::new(args.threads);
        let totals = std::thread::scope(|scope| {
            let one = |thread: usize| {
                let session = &sessions[thread % sessions.len()];
                let (args, start) = (&args, &start);
                scope.spawn(move || load(session, args, *rows, start))
            };
            let threads: Vec<_> = (0..args.threads).map(one).collect();
            let mut totals = [0.0; SLICES];
            for thread in threads {
                let rates = thread.join().ok().context("a thread of the ceiling panicked")??;
                totals.iter_mut().zip(rates).for_each(|(total, rate)| *total += rate);
            }
            anyhow::Ok(totals)
        })?;
        figures.insert(rows.to_string(), totals.into_iter().fold(0.0, f64::max).into());
    }
    let memory = xebec_net::process::usage().map_or(0, |usage| usage.resident_bytes);
    println!("{}", serde_json::json!({"rows_per_second": figures, "resident_bytes": memory}));
    Ok(())
}
