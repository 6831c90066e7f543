//! Extents as products: a whole number times named unknowns, one of which is the batch.
//!
//! Invariant: an extent is small. A product of more than [`MOST_SYMBOLS`] is unknown, for a graph of a few nodes can
//! square a number until it fills the memory.

/// The batch. Requests have at least one row, so it is never 0; every other symbol may be.
const BATCH: u64 = 0;
/// Real shapes multiply three or four unknowns.
const MOST_SYMBOLS: usize = 8;

/// `coefficient` times every symbol of `symbols`, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    coefficient: i64,
    symbols: Vec<u64>,
}

impl Extent {
    pub(super) fn constant(coefficient: i64) -> Self {
        Self { coefficient, symbols: Vec::new() }
    }

    pub(super) fn batch() -> Self {
        Self::symbol(BATCH)
    }

    pub(super) fn symbol(symbol: u64) -> Self {
        Self { coefficient: 1, symbols: vec![symbol] }
    }

    pub(super) fn is_batch(&self) -> bool {
        *self == Self::batch()
    }

    /// Whether it grows with the batch.
    pub(super) fn has_batch(&self) -> bool {
        self.symbols.contains(&BATCH)
    }

    /// Whether it is below 0, whatever its symbols are.
    pub(super) fn is_negative(&self) -> bool {
        self.coefficient < 0
    }

    /// Whether it is one unknown and nothing else.
    pub(super) fn is_symbol(&self) -> bool {
        self.coefficient == 1 && self.symbols.len() == 1
    }

    /// Whether it is 0 only where `whole` is 0 too, as far as its symbols say.
    pub(super) fn is_zero_only_with(&self, whole: &Self) -> bool {
        self.coefficient != 0
            && self.symbols.iter().all(|symbol| *symbol == BATCH || whole.symbols.contains(symbol))
    }

    /// Its value, if it is a number.
    pub(super) fn number(&self) -> Option<i64> {
        self.symbols.is_empty().then_some(self.coefficient)
    }

    /// Whether it certainly is not `number`: an extent with symbols has their sign.
    pub(super) fn differs_from(&self, other: &Self) -> Option<bool> {
        match (self.number(), other.number()) {
            (Some(a), Some(b)) => Some(a != b),
            _ if self == other => Some(false),
            (None, Some(number)) | (Some(number), None) => {
                let symbolic = if self.number().is_none() { self } else { other };
                // Extents are at least 0, so a product of them has its coefficient's sign.
                (number.signum() * symbolic.coefficient.signum() < 0).then_some(true)
            }
            (None, None) => None,
        }
    }

    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        let coefficient = self.coefficient.checked_mul(other.coefficient)?;
        if coefficient == 0 {
            return Some(Self::constant(0));
        }
        if self.symbols.len() + other.symbols.len() > MOST_SYMBOLS {
            return None;
        }
        let mut symbols = self.symbols.clone();
        symbols.extend(&other.symbols);
        symbols.sort_unstable();
        Some(Self { coefficient, symbols })
    }

    /// The exact quotient; `None` if it is not known to be one.
    pub(super) fn over(&self, other: &Self) -> Option<Self> {
        if self.coefficient.checked_rem(other.coefficient)? != 0 {
            return None;
        }
        let mut symbols = self.symbols.clone();
        for symbol in &other.symbols {
            let at = symbols.iter().position(|own| own == symbol)?;
            symbols.remove(at);
        }
        Some(Self { coefficient: self.coefficient.checked_div(other.coefficient)?, symbols })
    }

    pub(super) fn plus(&self, other: &Self) -> Option<Self> {
        if self.symbols == other.symbols {
            let coefficient = self.coefficient.checked_add(other.coefficient)?;
            return Some(if coefficient == 0 {
                Self::constant(0)
            } else {
                Self { coefficient, ..self.clone() }
            });
        }
        match (self.number(), other.number()) {
            (Some(0), _) => Some(other.clone()),
            (_, Some(0)) => Some(self.clone()),
            _ => None,
        }
    }

    pub(super) fn minus(&self, other: &Self) -> Option<Self> {
        self.plus(&Self { coefficient: other.coefficient.checked_neg()?, ..other.clone() })
    }

    pub(super) fn product<'a>(extents: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        extents.into_iter().try_fold(Self::constant(1), |product, extent| product.times(extent))
    }
}
