//! Hostile clients of the gRPC port, a test for each row of what other servers fell to. Beside each, well-behaved clients
//! of both ports go on, and none of their calls fails.
use crate::{
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING, RESET, Raw,
        SETTINGS, WINDOW_UPDATE, frame, head, literal,
    },
    rpc::{self, STREAM, framed},
    wire::{SCALER, connect, counted, infer, metrics, still_serves, until},
};
use prost::Message as _;
use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};
use xebec_e2e::server::Server;

pub(crate) fn server(more: &[&str]) -> Server {
    Server::start(&[&["serve", "--model-repository", "models/testdata/repository"], more].concat()).unwrap()
}

/// Runs an attack, with two clients beside it that call all the time. A call of theirs that fails is a panic.
pub(crate) fn beside<T>(server: &Server, attack: impl FnOnce() -> T) -> T {
    let (ended, calls) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(SeqCst) {
                assert_eq!(infer(server.http, "scaler", SCALER).status, 200);
                calls[0].fetch_add(1, SeqCst);
            }
        });
        scope.spawn(|| {
            rpc::run(async {
                let client = rpc::connect(server.grpc).await;
                while !ended.load(SeqCst) {
                    let outcome = rpc::call(&client, rpc::INFER, &rpc::scaler()).await.unwrap();
                    assert!(outcome.code == rpc::OK && rpc::is_scaled(&outcome.message), "{outcome:?}");
                    calls[1].fetch_add(1, SeqCst);
                }
            });
        });
        until("both clients call", || calls.iter().all(|calls| calls.load(SeqCst) > 3));
        // Said also if the attack ends in a panic: the clients would wait for it.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }
        let _end = End(&ended);
        let outcome = attack();
        let before = calls.each_ref().map(|calls| calls.load(SeqCst));
        until("both clients call on", || {
            calls.iter().zip(before).all(|(calls, before)| calls.load(SeqCst) > before + 3)
        });
        outcome
    })
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// More memory than this is none that an attack may cost, in KiB.
const SLACK_KIB: u64 = 64 << 10;

/// What of an attack may cost no memory.
pub(crate) fn without_memory<T>(server: &Server, attack: impl FnOnce() -> T) -> T {
    let before = resident_kib(server.id());
    let outcome = attack();
    let more = resident_kib(server.id()).saturating_sub(before);
    assert!(more < SLACK_KIB, "{more} KiB more are held");
    outcome
}

fn call(stream: u32) -> Vec<u8> {
    let body = framed(0, &rpc::scaler().encode_to_vec());
    [frame(HEADERS, END_HEADERS, stream, &head()), frame(DATA, END_STREAM, stream, &body)].concat()
}

#[test]
fn cve_2023_44487_rapid_reset_ends_the_connection() {
    let server = server(&[]);
    beside(&server, || {
        without_memory(&server, || {
            let mut raw = Raw::connect(server.grpc, &[]);
            let cancel = 8u32.to_be_bytes();
            let resets: Vec<u8> = (0..20_000)
                .flat_map(|at| [call(2 * at + 1), frame(RESET, 0, 2 * at + 1, &cancel)].concat())
                .collect();
            // The server may hang up in the middle.
            let _ = raw.0.write_all(&resets);
            assert!(raw.first(GOAWAY).is_none_or(|end| end.code() == ENHANCE_YOUR_CALM));
            // Nothing more is taken on it.
            until("the connection is closed", || raw.0.write_all(&frame(PING, 0, 0, &[0; 8])).is_err());
        });
    });
}

#[test]
fn made_you_reset_ends_the_connection() {
    let server = server(&[]);
    beside(&server, || {
        without_memory(&server, || {
            for mistake in [
                // No room at all, and more than there can be.
                |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4]),
                |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes()),
            ] {
                let mut raw = Raw::connect(server.grpc, &[]);
                let wrong: Vec<u8> =
                    (0..20_000).flat_map(|at| [call(2 * at + 1), mistake(2 * at + 1)].concat()).collect();
                let _ = raw.0.write_all(&wrong);
                while raw.next().is_some() {}
                until("the connection is closed", || raw.0.write_all(&frame(PING, 0, 0, &[0; 8])).is_err());
            }
        });
    });
}

#[test]
fn rustsec_2024_0332_a_continuation_flood_ends_the_connection() {
    let server = server(&[]);
    beside(&server, || {
        without_memory(&server, || {
            for piece in [&literal("x", &"y".repeat(100))[..], &[]] {
                let mut raw = Raw::connect(server.grpc, &[]);
                raw.0.write_all(&frame(HEADERS, 0, 1, &head())).unwrap();
                let flood = frame(CONTINUATION, 0, 1, piece).repeat(100);
                let _ = raw.flood(&flood, 10_000);
                while raw.next().is_some() {}
                until("the connection is closed", || raw.0.write_all(&frame(PING, 0, 0, &[0; 8])).is_err());
            }
        });
    });
}

#[test]
fn settings_and_ping_floods_of_a_client_that_never_reads_hold_nothing_and_are_cut() {
    let server = server(&["--stall-timeout-secs", "0.5"]);
    beside(&server, || {
        without_memory(&server, || {
            for one in [frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]), frame(PING, 0, 0, &[7; 8])] {
                let mut raw = Raw::connect(server.grpc, &[]);
                // More than any buffer between the two holds: it can only be sent whole if the server threw answers away.
                assert!(raw.flood(&one.repeat(1000), 100_000).is_err(), "it was all taken");
            }
        });
    });
}

#[test]
fn settings_and_ping_floods_of_a_client_that_reads_are_answered() {
    let server = server(&[]);
    beside(&server, || {
        without_memory(&server, || {
            for one in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[7; 8])] {
                let mut raw = Raw::connect(server.grpc, &[]);
                for _ in 0..200 {
                    raw.0.write_all(&one.repeat(100)).unwrap();
                    (0..100).for_each(|_| assert!(raw.first(one[3]).is_some()));
                }
            }
        });
    });
}

#[test]
fn windows_that_are_shut_overflow_or_flood_end_what_they_break_and_nothing_else() {
    let server = server(&["--stall-timeout-secs", "0.5"]);
    beside(&server, || {
        without_memory(&server, || {
            // The connection's own window: no room, and more than there can be.
            for increment in [0u32, 0x7fff_ffff] {
                let mut raw = Raw::connect(server.grpc, &[]);
                raw.0.write_all(&frame(WINDOW_UPDATE, 0, 0, &increment.to_be_bytes())).unwrap();
                assert!(raw.first(GOAWAY).is_some(), "{increment}");
            }
            // A byte at a time is slow and no fault.
            let mut raw = Raw::connect(server.grpc, &[]);
            raw.0.write_all(&frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).repeat(100_000)).unwrap();
            raw.0.write_all(&call(1)).unwrap();
            assert!(raw.first(HEADERS).is_some());
            // A window that is shut: the answer is not read, and its stream is cut.
            let mut raw = Raw::connect(server.grpc, &[(4, 0)]);
            raw.0.write_all(&call(1)).unwrap();
            let cut = raw.first(RESET).unwrap();
            assert_eq!(cut.stream, 1);
        });
    });
}

#[test]
fn a_header_list_bomb_is_refused_and_costs_no_memory() {
    let server = server(&[]);
    // A header of 3 KiB in the table, then a byte for each time that it is meant again.
    let long = "v".repeat(3000);
    let length = [0x7f, 0x80 | ((3000 - 127) & 0x7f) as u8, ((3000 - 127) >> 7) as u8];
    let entry = [&[0x40, 1, b'x'], &length[..], long.as_bytes()].concat();
    let bomb = [head(), entry, vec![0x80 | 62; 10_000]].concat();
    beside(&server, || {
        without_memory(&server, || {
            for _ in 0..20 {
                let mut raw = Raw::connect(server.grpc, &[]);
                raw.0.write_all(&frame(HEADERS, END_HEADERS, 1, &bomb[..16_000.min(bomb.len())])).unwrap();
                let refused = std::iter::from_fn(|| raw.next())
                    .find(|frame| [HEADERS, RESET, GOAWAY].contains(&frame.kind));
                // 431, a reset or the connection's end; never an answer of gRPC.
                let refused = refused.unwrap();
                let text = String::from_utf8_lossy(&refused.payload).into_owned();
                assert!(!text.contains("grpc-status"), "{text}");
            }
        });
    });
}

/// 10,000, or as many as this process and the server may hold open where they may not have more.
pub(crate) fn most_connections() -> usize {
    let files = xebec_net::process::raise_open_files().unwrap();
    usize::try_from(files).map_or(10_000, |files| files.saturating_sub(300).min(10_000))
}

#[test]
fn thousands_of_idle_connections_and_streams_cost_little_and_keep_nobody_out() {
    let connections = most_connections();
    let server = server(&["--max-connections", "12000"]);
    beside(&server, || {
        let before = resident_kib(server.id());
        let path = |path: &str| [literal(":path", path), literal(":authority", "localhost")].concat();
        let open = [
            literal(":method", "POST"),
            literal(":scheme", "http"),
            path(STREAM),
            literal("content-type", "application/grpc"),
        ]
        .concat();
        let idle: Vec<Raw> = (0..connections)
            .map(|_| {
                let mut raw = Raw::connect(server.grpc, &[]);
                raw.0.write_all(&frame(HEADERS, END_HEADERS, 1, &open)).unwrap();
                assert!(raw.first(HEADERS).is_some(), "the stream is open");
                raw
            })
            .collect();
        let series = "xebec_net_connections{listener=\"grpc\"}";
        assert!(counted(&metrics(&server), series).unwrap() >= idle.len() as u64);
        let each = resident_kib(server.id()).saturating_sub(before) / connections as u64;
        assert!(each < 64, "{each} KiB each");
        drop(idle);
        until("they are gone", || counted(&metrics(&server), series).unwrap() < 10);
    });
}

#[test]
fn a_stream_that_is_opened_and_never_read_holds_a_bounded_memory_and_is_cut() {
    let server = server(&["--stall-timeout-secs", "0.5"]);
    let row = 16 << 10;
    let request = xebec_net::wire::inference::ModelInferRequest {
        model_name: "identity_fp32".into(),
        inputs: vec![rpc::input("x", "FP32", &[1, row], None)],
        raw_input_contents: vec![vec![7; 4 * row as usize].into()],
        ..Default::default()
    };
    beside(&server, || {
        without_memory(&server, || {
            rpc::run(async {
                let mut shut = h2::client::Builder::new();
                let client = rpc::connect_with(server.grpc, shut.initial_window_size(0)).await;
                let mut talks = Vec::new();
                for _ in 0..10 {
                    let mut talk = rpc::Talk::open(&client, STREAM).await;
                    // As many as there is room for.
                    (0..100).for_each(|_| talk.say(&request));
                    talks.push(talk);
                }
                for talk in &mut talks {
                    let cut = std::future::poll_fn(|cx| talk.up.poll_reset(cx)).await.unwrap();
                    assert_eq!(cut, h2::Reason::CANCEL);
                }
            });
        });
    });
}

/// Bytes without an order, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| byte()).collect()
}

#[test]
fn shadow_mq_random_bytes_on_every_port_close_the_connection_and_nothing_else() {
    let server = server(&[]);
    let pickle = [&b"\x80\x04\x95"[..], &noise(500)].concat();
    beside(&server, || {
        for port in [server.http, server.grpc, server.metrics] {
            for bytes in
                [noise(100_000), noise(7), pickle.clone(), vec![0; 4096], b"\xff\x00\x00\x00".to_vec()]
            {
                let mut stream = connect(port);
                let _ = stream.write_all(&bytes);
                // It may have been closed already.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                // An answer or none, and then the end.
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    });
    assert_eq!(counted(&metrics(&server), "xebec_serve_panics_total"), Some(0));
    still_serves(server.http);
}

/// Addresses on which a process listens, from the kernel's tables.
fn listens(id: u32) -> Vec<SocketAddr> {
    let files = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap();
    let links = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
    let own: Vec<String> = links
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            link.strip_prefix("socket:[").map(|inode| inode.trim_end_matches(']').to_owned())
        })
        .collect();
    let table = |name: &str| std::fs::read_to_string(format!("/proc/{id}/net/{name}")).unwrap_or_default();
    assert_eq!(table("tcp6").lines().skip(1).filter(|line| is_own(line, &own)).count(), 0, "IPv6");
    let mut found: Vec<SocketAddr> = table("tcp")
        .lines()
        .skip(1)
        .filter(|line| is_own(line, &own))
        .map(|line| {
            let (ip, port) = line.split_whitespace().nth(1).unwrap().split_once(':').unwrap();
            let ip = u32::from_str_radix(ip, 16).unwrap().to_le_bytes();
            (ip, u16::from_str_radix(port, 16).unwrap()).into()
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Whether a line of the table is a socket of these that listens.
fn is_own(line: &str, own: &[String]) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    fields[3] == "0A" && own.iter().any(|inode| inode == fields[9])
}

#[test]
fn torchserve_only_the_configured_sockets_listen() {
    let all = server(&[]);
    let mut wanted = vec![all.http, all.grpc, all.metrics];
    wanted.sort();
    assert_eq!(listens(all.id()), wanted);
    assert!(wanted.iter().all(|address| address.ip().is_loopback()));
}
