//! Files of pictures, from their bytes to what a model takes.
use crate::memory::peak;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    panic::{set_hook, take_hook},
    sync::{Arc, LazyLock},
};
use xebec_core::{
    Datatype, Tensor,
    step::{Files, Recipe, Step, Steps as _},
};
use xebec_steps::Library;

/// Most pixels of a picture here.
const MOST_PIXELS: usize = 1 << 14;

/// What decoding may take: 16 bytes for a pixel, tables of the formats, the picture in the size that is asked for, and a part
/// of a lossy WebP, whose size is said in 24 bits and memory taken for it before it is read.
const PICTURE_BYTES: usize = MOST_PIXELS * 16 * 2 + (4 << 20) + (1 << 24);

/// Bytes for each byte of the file.
const PER_BYTE: usize = 16;

struct NoFiles;

impl Files for NoFiles {
    fn map(&self, name: &str) -> Result<Bytes, String> {
        Err(format!("there is no '{name}'"))
    }
}

fn open(kind: &str, settings: &[(&str, &str)]) -> Arc<dyn Step> {
    let settings: BTreeMap<String, String> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Library.open(Recipe { kind, settings: &settings, files: &NoFiles }).expect("its settings are right")
}

static DECODE: LazyLock<Arc<dyn Step>> = LazyLock::new(|| open("image_decode", &[("max_pixels", "16384")]));
static FIT: LazyLock<Arc<dyn Step>> =
    LazyLock::new(|| open("letterbox", &[("width", "32"), ("height", "32")]));
static NUMBERS: LazyLock<Arc<dyn Step>> = LazyLock::new(|| open("normalise", &[]));

/// Takes the input as a file.
pub(crate) fn target(bytes: &[u8]) -> bool {
    let (decode, fit, numbers) = (&*DECODE, &*FIT, &*NUMBERS);
    let length = u32::try_from(bytes.len()).expect("an input is small").to_le_bytes();
    let file = Tensor {
        name: "image".into(),
        datatype: Datatype::Bytes,
        shape: vec![1],
        data: [&length, bytes].concat().into(),
    };
    // What a decoder panics over is caught, and libFuzzer's own hook would end the search before.
    let hook = take_hook();
    set_hook(Box::new(|_| ()));
    let (decoded, took) = peak(|| decode.run(&[file]));
    set_hook(hook);
    let most = PICTURE_BYTES + PER_BYTE * bytes.len();
    assert!(took <= most, "{took} bytes, and {most} are the most");
    let Ok(decoded) = decoded else { return false };
    let pixels = tensor(&**decode, decoded).remove(0);
    let [height, width, 3] = pixels.shape[..] else { panic!("{:?} is no picture", pixels.shape) };
    assert!(height > 0 && width > 0 && height * width <= MOST_PIXELS as i64, "{:?}", pixels.shape);
    assert_eq!(pixels.data.len() as i64, height * width * 3);
    let small = tensor(&**fit, fit.run(&[pixels]).expect("a picture fits")).remove(0);
    assert_eq!(small.shape, [32, 32, 3]);
    let numbers = tensor(&**numbers, numbers.run(&[small]).expect("pixels are numbers")).remove(0);
    assert_eq!((numbers.shape.as_slice(), numbers.data.len()), (&[1, 3, 32, 32][..], 3 * 32 * 32 * 4));
    true
}

fn tensor(step: &dyn Step, made: Vec<xebec_core::step::Made>) -> Vec<Tensor> {
    let outputs = step.outputs().iter().zip(made);
    outputs
        .map(|(info, made)| {
            assert!(info.accepts(&made.shape), "{} {:?}", info.name, made.shape);
            Tensor {
                name: Arc::clone(&info.name),
                datatype: info.datatype,
                shape: made.shape,
                data: made.data,
            }
        })
        .collect()
}
