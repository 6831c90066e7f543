use super::*;
use proptest::prelude::*;

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
    let mut fields = Vec::new();
    decoder.decode(block, |field| {
        let name = match &field.name {
            Name::Plain(name) => name.to_string(),
            other => format!("{other:?}"),
        };
        let value =
            field.value.as_ref().map_or("(wrong)".into(), |value| value.to_str().unwrap_or("(bytes)").into());
        fields.push((name, value));
    })?;
    Ok(fields)
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

/// Bytes that are written in hexadecimal, as the RFC has them.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn the_static_table_ends_where_that_of_the_rfc_does() {
    assert_eq!(STATIC.len(), 61);
    assert_eq!(STATIC[30].name, Name::Plain(http::header::CONTENT_TYPE));
    assert_eq!(STATIC[60].name, Name::Plain(http::header::WWW_AUTHENTICATE));
}

#[test]
fn the_three_requests_of_the_rfc_are_read_with_huffman_and_without() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let packed = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let wanted = [
        pairs(&[("Method", "GET"), ("Scheme", "http"), ("Path", "/"), ("Authority", "www.example.com")]),
        pairs(&[
            ("Method", "GET"),
            ("Scheme", "http"),
            ("Path", "/"),
            ("Authority", "www.example.com"),
            ("cache-control", "no-cache"),
        ]),
        pairs(&[
            ("Method", "GET"),
            ("Scheme", "https"),
            ("Path", "/index.html"),
            ("Authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ]),
    ];
    for blocks in [plain, packed] {
        let mut decoder = Decoder::new();
        for (block, wanted) in blocks.iter().zip(&wanted) {
            assert_eq!(read(&mut decoder, &hex(block)).as_ref(), Ok(wanted));
        }
        assert_eq!((decoder.table.len(), decoder.table_bytes), (3, 164));
    }
}

#[test]
fn a_table_that_is_full_forgets_its_oldest_and_a_smaller_one_at_once() {
    let mut decoder = Decoder::new();
    let entry = |name: &str, bytes: usize| {
        let mut block = vec![0x40];
        let value = "v".repeat(bytes - FIELD_COST_BYTES - name.len());
        for text in [name, &value] {
            put_integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
        block
    };
    let fill: Vec<u8> = (0..5).flat_map(|at| entry(&format!("a{at}"), 1000)).collect();
    read(&mut decoder, &fill).unwrap();
    assert_eq!((decoder.table.len(), decoder.table_bytes), (4, 4000));
    assert!(read(&mut decoder, &[0x80 | 65]).unwrap()[0].0 == "a1");
    assert_eq!(read(&mut decoder, &[0x80 | 66]), Err(Malformed));
    // To 1,500 bytes, then one that does not fit at all.
    read(&mut decoder, &[0x3f, 0xbd, 0x0b]).unwrap();
    assert_eq!((decoder.table.len(), decoder.table_bytes), (1, 1000));
    read(&mut decoder, &entry("b", 2000)).unwrap();
    assert_eq!((decoder.table.len(), decoder.table_bytes), (0, 0));
    assert_eq!(read(&mut decoder, &[0x3f, 0xe2, 0x1f]), Err(Malformed), "more than was granted");
    assert_eq!(read(&mut decoder, &[0x82, 0x20]), Err(Malformed), "behind a field");
}

#[test]
fn blocks_that_are_cut_mean_nothing_or_count_too_far_are_refused() {
    for bad in [
        &[0x80][..],
        &[0xff, 0x80, 0x80, 0x80, 0x80, 0x01],
        &[0xbe],
        &[0x40],
        &[0x40, 1],
        &[0x40, 1, b'a'],
        &[0x40, 1, b'a', 5, b'b'],
        &[0x40, 1, b'a', 0x81, 0xff],
        &[0x7f],
    ] {
        assert_eq!(read(&mut Decoder::new(), bad), Err(Malformed), "{bad:x?}");
    }
}

#[test]
fn fields_that_no_request_may_have_are_handed_over_as_such() {
    let mut block = Vec::new();
    put(&mut block, "X-Capital", b"a");
    put(&mut block, ":strange", b"a");
    put(&mut block, "", b"a");
    put(&mut block, "plain", b"a\nb");
    let wanted = pairs(&[("Wrong", "a"), ("Wrong", "a"), ("Wrong", "a"), ("plain", "(wrong)")]);
    assert_eq!(read(&mut Decoder::new(), &block), Ok(wanted));
}

proptest! {
    #[test]
    fn what_is_put_is_read(name in "[a-z][a-z0-9-]{0,300}", value in "[ -~]{0,300}") {
        let mut block = Vec::new();
        put(&mut block, &name, value.as_bytes());
        prop_assert_eq!(read(&mut Decoder::new(), &block), Ok(vec![(name, value)]));
    }

    #[test]
    fn no_bytes_hold_more_than_was_granted(block in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut decoder = Decoder::new();
        for piece in block.chunks(40) {
            let _ = read(&mut decoder, piece);
            prop_assert!(decoder.table_bytes <= TABLE_BYTES as usize);
            prop_assert_eq!(decoder.table_bytes, decoder.table.iter().map(|field| field.bytes).sum::<usize>());
        }
    }
}
