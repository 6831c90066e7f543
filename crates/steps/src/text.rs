//! `tokenise`: texts become the token ids that a language model takes. `pool`: its vectors of tokens become one of the text.
//!
//! # Source
//! Hugging Face's `tokenizers` and its `tokenizer.json`; Reimers and Gurevych 2019, "Sentence-BERT", section 3, for pooling.
use crate::{
    settings::Settings,
    values::{elements, extent, info, made},
};
use tokenizers::{Tokenizer, TruncationParams};
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Made, Step, Unfit},
    tensor::bytes_elements,
};

/// Bytes of one text where nothing else is said: more than any model takes.
const MOST_BYTES: usize = 1 << 20;

/// Tokens of a request, with those that texts are padded with.
const MOST_TOKENS: usize = 1 << 20;

/// Texts of a request.
const MOST_TEXTS: usize = 4096;

/// See the module's text.
pub(crate) struct Tokenise {
    inputs: [TensorInfo; 1],
    outputs: [TensorInfo; 3],
    tokenizer: Tokenizer,
    most_bytes: usize,
    /// What stands where a text has ended and another has not.
    pad: i64,
}

impl Tokenise {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let (name, file) = settings.file("file")?;
        let wrong = |error: &dyn std::fmt::Display| {
            let text = error.to_string();
            format!(
                "setting 'file': '{name}' is no tokenizer.json of Hugging Face: {}",
                crate::settings::shown(&text)
            )
        };
        let mut tokenizer = Tokenizer::from_bytes(&file).map_err(|error| wrong(&error))?;
        let most = settings.number("max_length", Some(512), 2..=1_000_000)?;
        let pad = tokenizer.get_padding().map_or(0, |padding| i64::from(padding.pad_id));
        let truncation = TruncationParams { max_length: most, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(|error| wrong(&error))?;
        // Texts of a request are padded to the longest of them, whatever the file says.
        tokenizer.with_padding(None);
        let slot = |name| info(name, Datatype::Int64, &[-1, -1]);
        Ok(Self {
            inputs: [info("text", Datatype::Bytes, &[-1])],
            outputs: [slot("input_ids"), slot("attention_mask"), slot("token_type_ids")],
            tokenizer,
            most_bytes: settings.number("max_bytes", Some(MOST_BYTES), 1..=1 << 30)?,
            pad: settings.number("pad", Some(pad), 0..=i64::from(u32::MAX))?,
        })
    }
}

impl Step for Tokenise {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [text] = inputs else { return Err(Unfit("it takes texts".into())) };
        let mut all = Vec::new();
        for (at, element) in bytes_elements(&text.data).enumerate() {
            if at == MOST_TEXTS {
                return Err(Unfit(format!("there are more than {MOST_TEXTS} texts; send several requests")));
            }
            let element = element.map_err(|error| Unfit(error.to_string()))?;
            if element.len() > self.most_bytes {
                return Err(Unfit(format!(
                    "text {at} has {} bytes, and {} are the most (setting max_bytes)",
                    element.len(),
                    self.most_bytes
                )));
            }
            let text = std::str::from_utf8(element)
                .map_err(|error| Unfit(format!("text {at} is no UTF-8 at byte {}", error.valid_up_to())))?;
            let encoded = self.tokenizer.encode_fast(text, true);
            all.push(encoded.map_err(|error| Unfit(format!("text {at} cannot be tokenised: {error}")))?);
        }
        let longest = all.iter().map(tokenizers::Encoding::len).max().unwrap_or(0);
        let count = all.len() * longest;
        if count > MOST_TOKENS {
            return Err(Unfit(format!(
                "{} texts of {longest} tokens, to which they are padded, are more than {MOST_TOKENS}; send texts of like length together",
                all.len()
            )));
        }
        let (mut ids, mut mask, mut types) =
            (Vec::with_capacity(count), Vec::with_capacity(count), Vec::with_capacity(count));
        for encoded in &all {
            let end = ids.len() + longest;
            ids.extend(encoded.get_ids().iter().copied().map(i64::from));
            mask.extend(encoded.get_attention_mask().iter().copied().map(i64::from));
            types.extend(encoded.get_type_ids().iter().copied().map(i64::from));
            ids.resize(end, self.pad);
            mask.resize(end, 0);
            types.resize(end, 0);
        }
        let shape = [all.len(), longest];
        Ok(vec![made(&shape, ids), made(&shape, mask), made(&shape, types)])
    }
}

/// See the module's text.
pub(crate) struct Pool {
    inputs: [TensorInfo; 2],
    outputs: [TensorInfo; 1],
    mode: Mode,
    normalise: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Of the tokens that are there.
    Mean,
    /// Of each number the largest.
    Max,
    /// The first token's.
    First,
    /// The last token's that is there.
    Last,
}

impl Pool {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let modes = [("mean", Mode::Mean), ("max", Mode::Max), ("cls", Mode::First), ("last", Mode::Last)];
        Ok(Self {
            inputs: [
                info("hidden", Datatype::Fp32, &[-1, -1, -1]),
                info("attention_mask", Datatype::Int64, &[-1, -1]),
            ],
            outputs: [info("embeddings", Datatype::Fp32, &[-1, -1])],
            mode: settings.word("mode", &modes)?,
            normalise: settings.flag("normalise", true)?,
        })
    }

    /// One vector of those of a text's tokens.
    fn text(&self, tokens: &[f32], mask: &[i64], width: usize, out: &mut [f32]) {
        let there =
            || tokens.chunks_exact(width).zip(mask).filter(|(_, mask)| **mask != 0).map(|(token, _)| token);
        match self.mode {
            Mode::Mean => {
                let mut count = 0.0_f32;
                for token in there() {
                    out.iter_mut().zip(token).for_each(|(sum, number)| *sum += number);
                    count += 1.0;
                }
                out.iter_mut().for_each(|sum| *sum /= count.max(1.0));
            }
            Mode::Max => {
                for (at, token) in there().enumerate() {
                    for (most, number) in out.iter_mut().zip(token) {
                        *most = if at == 0 { *number } else { most.max(*number) };
                    }
                }
            }
            Mode::First => there().take(1).for_each(|token| out.copy_from_slice(token)),
            Mode::Last => there().next_back().into_iter().for_each(|token| out.copy_from_slice(token)),
        }
        if self.normalise {
            let norm = out.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
            #[expect(clippy::cast_possible_truncation, reason = "the numbers are of 32 bits")]
            out.iter_mut().for_each(|number| *number = (f64::from(*number) / norm.max(1e-12)) as f32);
        }
    }
}

impl Step for Pool {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [hidden, mask] = inputs else { return Err(Unfit("it takes vectors and their mask".into())) };
        let (rows, tokens, width) = (extent(hidden, 0), extent(hidden, 1), extent(hidden, 2));
        if (rows, tokens) != (extent(mask, 0), extent(mask, 1)) {
            return Err(Unfit(format!(
                "'hidden' has {rows} texts of {tokens} tokens, and 'attention_mask' {} of {}",
                extent(mask, 0),
                extent(mask, 1)
            )));
        }
        if rows > 0 && (tokens == 0 || width == 0) {
            return Err(Unfit(format!(
                "'hidden' has {rows} texts without a number: {tokens} tokens of {width}"
            )));
        }
        let (hidden, mask) = (elements::<f32>(hidden), elements::<i64>(mask));
        let mut out = vec![0.0; rows * width];
        if width > 0 && tokens > 0 {
            let texts = hidden.chunks_exact(tokens * width).zip(mask.chunks_exact(tokens));
            for ((text, mask), out) in texts.zip(out.chunks_exact_mut(width)) {
                self.text(text, mask, width, out);
            }
        }
        Ok(vec![made(&[rows, width], out)])
    }
}
