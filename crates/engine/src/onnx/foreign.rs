//! Formats that people mistake for ONNX, by their first bytes.

/// What a file is instead, and how to make ONNX of it; `None` if it may be ONNX.
pub(super) fn recognise(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let pickle =
        bytes.first() == Some(&0x80) && bytes.get(1).is_some_and(|version| (2..=5).contains(version));
    let safetensors = bytes.get(8) == Some(&b'{') && bytes.get(3..8) == Some(&[0; 5]);
    let table: [(bool, &str, &str); 8] = [
        (
            bytes.starts_with(b"PK\x03\x04"),
            "a zip archive, as PyTorch (.pt) and Keras (.keras) save",
            "export it with torch.onnx.export or tf2onnx",
        ),
        (
            pickle,
            "a Python pickle",
            "export the model with skl2onnx or torch.onnx.export; a pickle is code and is never loaded",
        ),
        (bytes.starts_with(b"\x89HDF\r\n\x1a\n"), "HDF5, as Keras (.h5) saves", "convert it with tf2onnx"),
        (bytes.starts_with(b"GGUF"), "GGUF", "export the original model to ONNX, for example with optimum"),
        (bytes.get(4..8) == Some(b"TFL3"), "TensorFlow Lite", "convert it with tf2onnx --tflite"),
        (bytes.starts_with(&[0x1f, 0x8b]), "gzip", "unpack it with gunzip"),
        (
            safetensors,
            "safetensors, which holds weights without a graph",
            "export the model with torch.onnx.export",
        ),
        (
            bytes.get(4..8) == Some(b"ORTM"),
            "ONNX Runtime's own format (.ort)",
            "use the .onnx file it was made from",
        ),
    ];
    table.into_iter().find(|(is, _, _)| *is).map(|(_, format, way_out)| (format, way_out))
}
