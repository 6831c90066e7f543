//! Regions, their bounds, and what no error says.
use super::{
    tensors::{Most, Shared, put},
    *,
};
use std::{fs, time::Instant};
use xebec_core::{Code, Datatype, InferRequest, InferResponse, Tensor, Timings};

const MOST: Most = Most { bytes: 1000, flag: "--the-flag" };

/// Every word that must not be in an error.
const SECRETS: [&str; 3] = ["secret-region", "secret-key", "secret-folder"];

struct Fixture {
    folder: tempfile::TempDir,
    memory: SharedMemory,
}

/// Shared memory `secret-key` of 100 bytes 0, 1, 2..., in a folder of its own.
fn fixture() -> Fixture {
    let folder = tempfile::Builder::new().prefix("secret-folder").tempdir().unwrap();
    fs::write(folder.path().join("secret-key"), (0..100).collect::<Vec<u8>>()).unwrap();
    let memory = SharedMemory::new(Allowed::parse("secret-*").unwrap(), folder.path().to_owned());
    Fixture { folder, memory }
}

fn status(name: &str, key: &str, offset: u64, byte_size: u64) -> Status {
    Status { name: name.into(), key: key.into(), offset, byte_size }
}

fn slice(offset: u64, byte_size: u64) -> Slice {
    Slice { region: "secret-region".into(), offset, byte_size }
}

fn tensor(name: &str, data: &[u8]) -> Tensor {
    let data = Bytes::copy_from_slice(data);
    Tensor { name: name.into(), datatype: Datatype::Uint8, shape: vec![data.len() as i64], data }
}

fn request() -> InferRequest {
    let (inputs, received) = (vec![tensor("x", b""), tensor("z", b"")], Instant::now());
    InferRequest {
        id: String::new(),
        inputs,
        outputs: Vec::new(),
        timeout: None,
        priority: 0,
        sequence: None,
        streamed: false,
        headers: Vec::new(),
        received,
        trace: None,
    }
}

fn response(outputs: Vec<Tensor>) -> InferResponse {
    InferResponse { outputs, timings: Timings::default() }
}

impl Fixture {
    fn registered() -> Self {
        let fixture = fixture();
        fixture.memory.register(status("secret-region", "/secret-key", 10, 80)).unwrap();
        fixture
    }

    fn fetch(&self, inputs: &[(usize, Slice)], outputs: &[(&str, Slice)]) -> Result<Vec<u8>, InferError> {
        let outputs = outputs.iter().map(|(name, slice)| ((*name).to_owned(), slice.clone())).collect();
        let mut request = request();
        let shared = Shared { inputs: inputs.to_vec(), outputs };
        shared.fetch(|| Ok(&self.memory), &mut request, MOST, |_| Ok(()))?;
        Ok(request.inputs[0].data.to_vec())
    }

    fn put(&self, outputs: &[(&str, Slice)], tensors: Vec<Tensor>) -> Result<InferResponse, InferError> {
        let outputs = outputs.iter().map(|(name, slice)| ((*name).to_owned(), slice.clone())).collect();
        let shared = Shared { inputs: Vec::new(), outputs };
        let places = shared.fetch(|| Ok(&self.memory), &mut request(), MOST, |_| Ok(()))?;
        let mut response = response(tensors);
        put(&places, &mut response)?;
        Ok(response)
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("secret-key")).unwrap()
    }
}

/// The error's code, once it is sure that it says nothing that it must not.
fn quiet<T>(outcome: Result<T, InferError>) -> Code {
    let error = outcome.err().unwrap();
    let said = format!("{error} {} {}", error.message_for(""), error.hint().unwrap_or_default());
    assert!(!SECRETS.iter().any(|secret| said.contains(secret)), "{said}");
    assert!(!said.contains("/dev") && !said.contains("os error"), "{said}");
    error.code()
}

#[test]
fn inputs_come_from_their_place_and_outputs_go_to_theirs() {
    let fixture = Fixture::registered();
    assert_eq!(fixture.fetch(&[(0, slice(0, 3))], &[]).unwrap(), [10, 11, 12]);
    assert_eq!(fixture.fetch(&[(0, slice(78, 2))], &[]).unwrap(), [88, 89]);
    assert_eq!(fixture.fetch(&[(0, slice(80, 0))], &[]).unwrap(), [0; 0]);
    let places = [("y", slice(0, 3)), ("w", slice(3, 10))];
    let left = fixture.put(&places, vec![tensor("w", &[1, 2]), tensor("y", &[7; 3])]).unwrap();
    assert!(left.outputs.iter().all(|output| output.data.is_empty()));
    let bytes = fixture.bytes();
    assert_eq!((&bytes[9..16], bytes.len()), (&[9, 7, 7, 7, 1, 2, 15][..], 100));
}

#[test]
fn what_passes_the_end_of_a_region_is_refused_however_large_the_numbers() {
    let fixture = Fixture::registered();
    for (offset, size) in
        [(0, 81), (81, 0), (80, 1), (1, 80), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX)]
    {
        let wrong = slice(offset, size);
        assert_eq!(quiet(fixture.fetch(&[(0, wrong.clone())], &[])), Code::InvalidArgument, "{wrong:?}");
        assert_eq!(quiet(fixture.fetch(&[], &[("y", wrong.clone())])), Code::InvalidArgument, "{wrong:?}");
    }
    for (offset, size) in [(0, 101), (100, 1), (u64::MAX, 1), (1, u64::MAX), (0, 0)] {
        let outcome = fixture.memory.register(status("secret-region-2", "secret-key", offset, size));
        assert_eq!(quiet(outcome), Code::InvalidArgument, "{offset} {size}");
    }
}

#[test]
fn only_plain_files_with_one_allowed_name_can_be_registered() {
    let fixture = fixture();
    let at = |name: &str| fixture.folder.path().join(name);
    fs::write(at("other"), [0; 100]).unwrap();
    std::os::unix::fs::symlink(at("other"), at("secret-link")).unwrap();
    fs::hard_link(at("other"), at("secret-twin")).unwrap();
    fs::create_dir(at("secret-dir")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("secret-pipe")).status().unwrap().success());
    for key in [
        "other",
        "/other",
        "secret-missing",
        "secret-link",
        "secret-twin",
        "secret-dir",
        "secret-pipe",
        "secret-dir/../other",
        "../secret-key",
        "",
    ] {
        let outcome = fixture.memory.register(status("secret-region", key, 0, 1));
        assert_eq!(quiet(outcome), Code::InvalidArgument, "{key}");
    }
    assert_eq!(fixture.memory.status("").unwrap(), []);
}

#[test]
fn names_are_bounded_and_so_is_how_many_there_are() {
    let fixture = fixture();
    for name in ["", "secret-region\n", &"secret-region".repeat(20)] {
        assert_eq!(quiet(fixture.memory.register(status(name, "secret-key", 0, 1))), Code::InvalidArgument);
    }
    for number in 0..MOST_REGIONS {
        fixture.memory.register(status(&number.to_string(), "secret-key", 0, 1)).unwrap();
    }
    let more = || fixture.memory.register(status("secret-region", "secret-key", 0, 1));
    assert_eq!(quiet(more()), Code::InvalidArgument);
    fixture.memory.unregister("0");
    more().unwrap();
    assert_eq!(quiet(more()), Code::InvalidArgument);
    fixture.memory.unregister("");
    assert_eq!(fixture.memory.status("").unwrap(), []);
}

#[test]
fn a_status_tells_one_region_or_all_and_not_one_that_is_unknown() {
    let fixture = Fixture::registered();
    let known = status("secret-region", "/secret-key", 10, 80);
    assert_eq!(fixture.memory.status("secret-region").unwrap(), std::slice::from_ref(&known));
    assert_eq!(fixture.memory.status("").unwrap(), [known]);
    fixture.memory.unregister("nobody");
    fixture.memory.unregister("secret-region");
    assert_eq!(quiet(fixture.memory.status("secret-region")), Code::NotFound);
    assert_eq!(quiet(fixture.fetch(&[(0, slice(0, 1))], &[])), Code::NotFound);
    assert_eq!(quiet(fixture.fetch(&[], &[("y", slice(0, 1))])), Code::NotFound);
}

#[test]
fn memory_that_was_cut_is_an_error_and_is_not_made_longer() {
    let fixture = Fixture::registered();
    let shared = Shared { inputs: Vec::new(), outputs: vec![("y".into(), slice(0, 80))] };
    let places = shared.fetch(|| Ok(&fixture.memory), &mut request(), MOST, |_| Ok(())).unwrap();
    let file = fs::OpenOptions::new().write(true).open(fixture.folder.path().join("secret-key")).unwrap();
    file.set_len(50).unwrap();
    assert_eq!(quiet(fixture.fetch(&[(0, slice(0, 80))], &[])), Code::InvalidArgument);
    assert_eq!(quiet(fixture.fetch(&[], &[("y", slice(0, 80))])), Code::InvalidArgument);
    let outcome = put(&places, &mut response(vec![tensor("y", &[1; 80])]));
    assert_eq!((quiet(outcome), fixture.bytes().len()), (Code::InvalidArgument, 50));
    assert_eq!(fixture.fetch(&[(0, slice(0, 2))], &[]).unwrap(), [10, 11]);
}

#[test]
fn a_request_goes_on_with_the_regions_it_began_with() {
    let fixture = Fixture::registered();
    let shared = Shared { inputs: Vec::new(), outputs: vec![("y".into(), slice(0, 8))] };
    let places = shared.fetch(|| Ok(&fixture.memory), &mut request(), MOST, |_| Ok(())).unwrap();
    fixture.memory.unregister("");
    fs::remove_file(fixture.folder.path().join("secret-key")).unwrap();
    put(&places, &mut response(vec![tensor("y", &[1; 8])])).unwrap();
}

#[test]
fn an_output_that_does_not_fit_its_place_leaves_all_places_as_they_were() {
    let fixture = Fixture::registered();
    let places = [("y", slice(0, 4)), ("w", slice(4, 4))];
    let outcome = fixture.put(&places, vec![tensor("y", &[1; 4]), tensor("w", &[1; 5])]);
    assert_eq!(quiet(outcome), Code::InvalidArgument);
    assert_eq!(fixture.bytes(), (0..100).collect::<Vec<u8>>());
}

#[test]
fn outputs_may_touch_and_not_overlap_also_not_through_two_regions() {
    let fixture = Fixture::registered();
    fixture.memory.register(status("secret-twin", "secret-key", 0, 100)).unwrap();
    let twin = |offset, byte_size| Slice { region: "secret-twin".into(), offset, byte_size };
    for (other, fits) in [
        (slice(8, 4), true),
        (slice(7, 4), false),
        (slice(0, 1), false),
        (twin(0, 10), true),
        (twin(18, 1), true),
        (twin(17, 1), false),
        (twin(0, 100), false),
    ] {
        let outcome = fixture.fetch(&[], &[("y", slice(0, 8)), ("w", other.clone())]);
        assert_eq!(outcome.is_ok(), fits, "{other:?}");
        if !fits {
            assert_eq!(quiet(outcome), Code::InvalidArgument);
        }
    }
}

#[test]
fn what_one_request_brings_is_bounded_in_sum_and_counted_before_it_is_read() {
    let fixture = Fixture::registered();
    let shared = |count: usize| Shared { inputs: vec![(0, slice(0, 80)); count], outputs: Vec::new() };
    let fetch = |count, room| {
        let mut request = request();
        let outcome = shared(count).fetch(
            || Ok(&fixture.memory),
            &mut request,
            MOST,
            |bytes| {
                assert_eq!(bytes, count * 80);
                room
            },
        );
        outcome.map(drop)
    };
    assert_eq!(fetch(12, Ok(())), Ok(()));
    assert_eq!(quiet(fetch(13, Ok(()))), Code::TooLarge);
    assert_eq!(fetch(1, Err(InferError::NoRoom)), Err(InferError::NoRoom));
    let not_asked = shared(0).fetch(|| Err(InferError::NoRoom), &mut request(), MOST, |_| Ok(()));
    assert_eq!(not_asked.map(|places| places.len()), Ok(0));
    let refused = shared(1).fetch(|| Err(InferError::NoRoom), &mut request(), MOST, |_| Ok(()));
    assert_eq!(refused.map(drop), Err(InferError::NoRoom));
}
