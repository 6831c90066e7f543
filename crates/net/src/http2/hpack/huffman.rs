//! The code by which HPACK shortens text.
//!
//! It is canonical: among codes of one length, those of greater symbols are greater, and each length goes on where the one
//! before it stopped. So the lengths are all there is to know.
//!
//! # Source
//! RFC 7541, section 5.2 and appendix B.
use super::Malformed;

/// Bits of each symbol's code; the last is the end of a text, which no text contains.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

const SHORTEST: usize = 5;
const LONGEST: usize = 30;
const END: u16 = 256;

/// Symbols by their codes, and where the codes of each length begin.
struct Code {
    /// Symbols from the least code to the greatest.
    symbols: [u16; 257],
    /// By length: the first code that is longer, its bits moved to the top of 32; and what added to a code of this length
    /// gives the place of its symbol.
    ends: [(u32, i64); LONGEST + 1],
    /// By the first eight bits: a symbol whose code lies within them, and the code's length; no length if it is longer.
    short: [(u8, u8); 256],
}

const CODE: Code = build();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "runs when this is compiled, over its own bounds"
)]
const fn build() -> Code {
    let mut code = Code { symbols: [0; 257], ends: [(0, 0); LONGEST + 1], short: [(0, 0); 256] };
    let (mut next, mut place, mut length) = (0u32, 0usize, 1usize);
    while length <= LONGEST {
        next <<= 1;
        code.ends[length].1 = place as i64 - next as i64;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.symbols[place] = symbol as u16;
                if length <= 8 {
                    let mut first = (next as usize) << (8 - length);
                    let last = (next as usize + 1) << (8 - length);
                    while first < last {
                        code.short[first] = (symbol as u8, length as u8);
                        first += 1;
                    }
                }
                place += 1;
                next += 1;
            }
            symbol += 1;
        }
        // At the longest this is one more than 32 bits hold: nothing lies behind it.
        let end = (next as u64) << (32 - length);
        code.ends[length].0 = if end > u32::MAX as u64 { u32::MAX } else { end as u32 };
        length += 1;
    }
    code
}

static TABLE: Code = CODE;

/// Adds the text to `out`.
///
/// # Errors
/// The bits are no text: its end is in the middle, or what is left over is not the beginning of that end.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    // Bits that wait, the first of them at the top, and how many there are.
    let (mut bits, mut count) = (0u64, 0u32);
    for byte in text {
        bits |= u64::from(*byte) << (56 - count);
        count += 8;
        while let Some((symbol, length)) = first(bits, count)? {
            out.push(symbol);
            bits <<= length;
            count -= length;
        }
    }
    let padding = u64::MAX << (64 - count.max(1));
    if count >= 8 || (count > 0 && bits != padding) { Err(Malformed) } else { Ok(()) }
}

/// The first symbol of these bits and its length, if all of its bits are there.
fn first(bits: u64, count: u32) -> Result<Option<(u8, u32)>, Malformed> {
    let [top, ..] = bits.to_be_bytes();
    if let Some((symbol, length)) = TABLE.short.get(usize::from(top))
        && *length > 0
    {
        let length = u32::from(*length);
        return Ok((length <= count).then_some((*symbol, length)));
    }
    let window = u32::try_from(bits >> 32).unwrap_or_default();
    for (length, (end, offset)) in (0u32..).zip(&TABLE.ends).skip(SHORTEST) {
        if length > count {
            return Ok(None);
        }
        if window < *end || length as usize == LONGEST {
            let place = i64::from(window >> (32 - length)) + offset;
            let symbol = usize::try_from(place).ok().and_then(|place| TABLE.symbols.get(place));
            return match symbol {
                Some(symbol) if *symbol != END => {
                    Ok(u8::try_from(*symbol).ok().map(|symbol| (symbol, length)))
                }
                _ => Err(Malformed),
            };
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a text becomes, bit by bit.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut codes = [(0u32, 0u8); 257];
        let mut order: Vec<usize> = (0..257).collect();
        order.sort_by_key(|symbol| (LENGTHS[*symbol], *symbol));
        let (mut code, mut before) = (0u32, 0);
        for symbol in order {
            code <<= LENGTHS[symbol] - before;
            before = LENGTHS[symbol];
            codes[symbol] = (code, before);
            code = code.wrapping_add(1);
        }
        let mut bits = String::new();
        for byte in text {
            let (code, length) = codes[usize::from(*byte)];
            bits.extend(format!("{code:032b}").chars().skip(32 - usize::from(length)));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    fn decoded(text: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        decode(text, &mut out).map(|()| out)
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let cases: [(&[u8], &str); 4] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], "custom-key"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
        ];
        for (packed, text) in cases {
            assert_eq!(decoded(packed).unwrap(), text.as_bytes());
            assert_eq!(encode(text.as_bytes()), packed);
        }
    }

    #[test]
    fn padding_that_is_too_long_or_not_of_ones_and_the_end_itself_are_refused() {
        for bad in [
            &[0xff][..],
            &[0b0000_0000],
            &[0x1f, 0xff],
            &[0xff, 0xff, 0xff, 0xff],
            &[0xff; 8],
            &[0xff, 0xff, 0xff],
        ] {
            assert!(decoded(bad).is_err(), "{bad:x?}");
        }
        assert_eq!(decoded(&[0b0000_0111]).unwrap(), b"0");
        assert_eq!(decoded(&[]).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn every_text_is_read_back(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decoded(&encode(&text)).unwrap(), text);
        }

        #[test]
        fn what_is_read_is_what_was_packed(packed in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(text) = decoded(&packed) {
                prop_assert_eq!(encode(&text), packed);
            }
        }
    }
}
