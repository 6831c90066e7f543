//! How far the answers of a copy are from those of the original.
//!
//! Every measure is a loss: 0 is equal, more is worse. Over several outputs the worst one counts.
use clap::ValueEnum;
use xebec_core::{Datatype, tensor::bytes_elements};

/// What a loss is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Metric {
    /// The largest difference of two elements.
    MaxAbs,
    /// The mean difference.
    MeanAbs,
    /// Length of the difference over the length of the original's answer.
    Relative,
    /// 1 less the mean cosine of the rows.
    Cosine,
    /// Share of the rows whose largest element is another one; for whole numbers and text, of elements that differ.
    Top1,
}

/// Differences of one output over all data.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Loss {
    pub(super) output: String,
    elements: u64,
    max_abs: f64,
    sum_abs: f64,
    sum_squares: f64,
    sum_squares_original: f64,
    rows: u64,
    sum_cosine: f64,
    /// Rows that were compared by their largest element, and those that agree.
    ranked: u64,
    agree: u64,
}

impl Loss {
    pub(super) fn new(output: &str) -> Self {
        Self { output: output.to_owned(), ..Self::default() }
    }

    /// Adds one answer. `shape` is the original's.
    ///
    /// # Errors
    /// Why the two cannot be compared.
    pub(super) fn add(
        &mut self,
        datatype: Datatype,
        (shape, original): (&[i64], &[u8]),
        (copy_datatype, copy_shape, copy): (Datatype, &[i64], &[u8]),
    ) -> Result<(), String> {
        if (datatype, shape) != (copy_datatype, copy_shape) {
            return Err(format!(
                "output '{}' is {datatype} {shape:?} of the original and {copy_datatype} {copy_shape:?} of the copy",
                self.output
            ));
        }
        match (numbers(datatype, original), numbers(datatype, copy)) {
            (Some(a), Some(b)) => self.add_numbers(shape, &a, &b),
            _ => self
                .add_equal(elements(datatype, original).zip(elements(datatype, copy)).map(|(a, b)| a == b)),
        }
        Ok(())
    }

    fn add_numbers(&mut self, shape: &[i64], original: &[f64], copy: &[f64]) {
        let width = shape.last().and_then(|last| usize::try_from(*last).ok()).unwrap_or(1).max(1);
        let classes = shape.len() > 1 && width > 1;
        for (a, b) in original.chunks(width).zip(copy.chunks(width)) {
            let (mut dot, mut length_a, mut length_b, mut equal) = (0.0, 0.0, 0.0, true);
            for (a, b) in a.iter().zip(b) {
                self.elements += 1;
                // Both may be infinite or no number at the same place: that is no difference, and has no length.
                if (a == b && a.is_infinite()) || (a.is_nan() && b.is_nan()) {
                    continue;
                }
                let apart = (a - b).abs();
                let apart = if apart.is_nan() { f64::INFINITY } else { apart };
                equal &= apart == 0.0;
                self.max_abs = self.max_abs.max(apart);
                self.sum_abs += apart;
                self.sum_squares += apart * apart;
                self.sum_squares_original += a * a;
                dot += a * b;
                length_a += a * a;
                length_b += b * b;
            }
            self.rows += 1;
            let lengths = f64::sqrt(length_a) * f64::sqrt(length_b);
            let cosine = match dot / lengths {
                _ if equal => 1.0,
                _ if lengths == 0.0 => 0.0,
                cosine => cosine,
            };
            self.sum_cosine += if cosine.is_nan() { -1.0 } else { cosine.clamp(-1.0, 1.0) };
            if classes {
                self.ranked += 1;
                self.agree += u64::from(largest(a) == largest(b));
            }
        }
    }

    fn add_equal(&mut self, equal: impl Iterator<Item = bool>) {
        for equal in equal {
            self.ranked += 1;
            self.agree += u64::from(equal);
        }
    }

    /// The loss by a metric, which is a number; `None` if this output has none.
    pub(super) fn by(&self, metric: Metric) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "counts fit a double")]
        let (elements, rows, ranked, agree) =
            (self.elements as f64, self.rows as f64, self.ranked as f64, self.agree as f64);
        match metric {
            Metric::Top1 => (self.ranked > 0).then(|| 1.0 - agree / ranked),
            _ if self.elements == 0 => None,
            Metric::MaxAbs => Some(self.max_abs),
            Metric::MeanAbs => Some(self.sum_abs / elements),
            Metric::Relative if self.sum_squares == 0.0 => Some(0.0),
            // Of a length beyond all bounds any difference would be nothing.
            Metric::Relative if !self.sum_squares_original.is_finite() => Some(f64::INFINITY),
            Metric::Relative => Some(f64::sqrt(self.sum_squares / self.sum_squares_original)),
            Metric::Cosine => Some((1.0 - self.sum_cosine / rows).max(0.0)),
        }
    }
}

/// The loss of the worst output.
pub(super) fn worst(losses: &[Loss], metric: Metric) -> Option<f64> {
    losses.iter().filter_map(|loss| loss.by(metric)).reduce(f64::max)
}

/// The place of the first largest element; `None` if none is a number.
fn largest(row: &[f64]) -> Option<usize> {
    let best = |best: Option<(usize, f64)>, (at, value): (usize, &f64)| match best {
        _ if value.is_nan() => best,
        Some((_, most)) if most >= *value => best,
        _ => Some((at, *value)),
    };
    row.iter().enumerate().fold(None, best).map(|(at, _)| at)
}

/// Elements in floating point as doubles; `None` of others.
fn numbers(datatype: Datatype, data: &[u8]) -> Option<Vec<f64>> {
    let two = |bytes: &[u8]| bytes.try_into().map(u16::from_le_bytes).unwrap_or(0);
    Some(match datatype {
        Datatype::Fp16 => data.chunks(2).map(|b| half::f16::from_bits(two(b)).to_f64()).collect(),
        Datatype::Bf16 => data.chunks(2).map(|b| half::bf16::from_bits(two(b)).to_f64()).collect(),
        Datatype::Fp32 => {
            data.chunks(4).map(|b| b.try_into().map_or(0.0, |b| f64::from(f32::from_le_bytes(b)))).collect()
        }
        Datatype::Fp64 => data.chunks(8).map(|b| b.try_into().map_or(0.0, f64::from_le_bytes)).collect(),
        _ => return None,
    })
}

/// The bytes of each element.
fn elements(datatype: Datatype, data: &[u8]) -> Box<dyn Iterator<Item = &[u8]> + '_> {
    match datatype.size_bytes() {
        Some(size) => Box::new(data.chunks(size)),
        None => Box::new(bytes_elements(data).map(Result::unwrap_or_default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(shape: &[i64], a: &[f32], b: &[f32]) -> Loss {
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let mut loss = Loss::new("y");
        loss.add(Datatype::Fp32, (shape, &bytes(a)), (Datatype::Fp32, shape, &bytes(b))).unwrap();
        loss
    }

    #[test]
    fn equal_answers_have_no_loss_by_any_metric() {
        let same = loss(&[2, 2], &[1.0, 2.0, f32::NAN, f32::INFINITY], &[1.0, 2.0, f32::NAN, f32::INFINITY]);
        for metric in [Metric::MaxAbs, Metric::MeanAbs, Metric::Relative, Metric::Cosine, Metric::Top1] {
            assert_eq!(same.by(metric), Some(0.0), "{metric:?}");
        }
        let large = [f64::MAX, 1.0].map(f64::to_le_bytes).concat();
        let mut huge = Loss::new("y");
        huge.add(Datatype::Fp64, (&[1, 2], &large), (Datatype::Fp64, &[1, 2], &large)).unwrap();
        assert_eq!((huge.by(Metric::Cosine), huge.by(Metric::Relative)), (Some(0.0), Some(0.0)));
        let cosine = loss(&[2, 2], &[0.0, 0.0, 1.0, 2.0], &[0.0, 0.0, 1.0, 2.0]).by(Metric::Cosine);
        assert!(cosine.is_some_and(|loss| loss < 1e-12), "{cosine:?}");
    }

    #[test]
    fn each_metric_is_what_it_says() {
        let apart = loss(&[2, 2], &[3.0, 4.0, 0.0, 1.0], &[3.0, 4.5, 1.0, 0.0]);
        let by = |metric| apart.by(metric).unwrap();
        assert_eq!((by(Metric::MaxAbs), by(Metric::MeanAbs)), (1.0, 2.5 / 4.0));
        assert!((by(Metric::Relative) - (2.25f64 / 26.0).sqrt()).abs() < 1e-12);
        // The first row keeps its largest, the second does not; the second is at a right angle.
        assert_eq!(by(Metric::Top1), 0.5);
        assert!((0.5..0.51).contains(&by(Metric::Cosine)));
    }

    #[test]
    fn an_answer_that_is_no_number_is_the_largest_loss() {
        let broken = loss(&[1, 2], &[1.0, 2.0], &[1.0, f32::NAN]);
        assert_eq!(broken.by(Metric::MaxAbs), Some(f64::INFINITY));
        assert_eq!(broken.by(Metric::Cosine), Some(2.0));
        let good = loss(&[1, 2], &[1.0, 2.0], &[1.0, 2.0]);
        for losses in [[broken.clone(), good.clone()], [good, broken]] {
            assert_eq!(worst(&losses, Metric::Relative), Some(f64::INFINITY));
        }
        let gone = loss(&[1, 2], &[2.0, 1.0], &[f32::NAN, f32::NAN]);
        assert_eq!(gone.by(Metric::Top1), Some(1.0));
        // What both lack is no length that would make a difference look small.
        let hidden = loss(&[1, 2], &[f32::INFINITY, 1.0], &[f32::INFINITY, 3.0]);
        assert_eq!(hidden.by(Metric::Relative), Some(2.0));
        // Nor is it a loss in one of the two places only.
        for (a, b) in
            [([f32::NAN, 1.0], [0.0, 1.0]), ([0.0, 1.0], [f32::NAN, 1.0]), ([f32::INFINITY, 1.0], [0.0, 1.0])]
        {
            let loss = loss(&[1, 2], &a, &b);
            assert_eq!(loss.by(Metric::Relative), Some(f64::INFINITY), "{a:?} {b:?}");
        }
    }

    #[test]
    fn labels_are_compared_one_by_one_and_shapes_must_be_equal() {
        let mut labels = Loss::new("label");
        let bytes = |values: [i64; 2]| values.map(i64::to_le_bytes).concat();
        let (a, b) = (bytes([1, 2]), bytes([1, 3]));
        labels.add(Datatype::Int64, (&[2], &a), (Datatype::Int64, &[2], &b)).unwrap();
        assert_eq!((labels.by(Metric::Top1), labels.by(Metric::MaxAbs)), (Some(0.5), None));
        let error = labels.add(Datatype::Int64, (&[2], &a), (Datatype::Int64, &[1, 2], &b)).unwrap_err();
        assert!(error.contains("'label'"), "{error}");
    }
}
