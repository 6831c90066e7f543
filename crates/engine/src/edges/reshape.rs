//! One shape for callers, another for the graph, of as many elements.
use std::fmt;

/// From one shape to another. Their n-th free extents are the same, and what lies between two of them has as many
/// elements in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reshape {
    from: Vec<i64>,
    to: Vec<i64>,
}

/// Two shapes that cannot have as many elements for every free extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unequal;

impl fmt::Display for Unequal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the shapes have different numbers of elements")
    }
}

impl Reshape {
    /// Checks two shapes without a batch axis; -1 is a free extent.
    pub(crate) fn new(from: &[i64], to: &[i64]) -> Result<Self, Unequal> {
        let between = |shape: &[i64]| -> Option<Vec<i64>> {
            let segment = |part: &[i64]| part.iter().try_fold(1i64, |all, extent| all.checked_mul(*extent));
            shape.split(|extent| *extent == -1).map(segment).collect()
        };
        match (between(from), between(to)) {
            (Some(a), Some(b)) if a == b => Ok(Self { from: from.to_vec(), to: to.to_vec() }),
            _ => Err(Unequal),
        }
    }

    /// The other way round.
    pub(crate) fn inverse(self) -> Self {
        Self { from: self.to, to: self.from }
    }

    /// A concrete shape in the other form; `None` if it is none of the first.
    pub(crate) fn apply(&self, shape: &[i64]) -> Option<Vec<i64>> {
        let fits = |(known, extent): (&i64, &i64)| *known == -1 || known == extent;
        if shape.len() != self.from.len() || !self.from.iter().zip(shape).all(fits) {
            return None;
        }
        let mut free =
            self.from.iter().zip(shape).filter(|(known, _)| **known == -1).map(|(_, extent)| *extent);
        self.to.iter().map(|known| if *known == -1 { free.next() } else { Some(*known) }).collect()
    }
}
