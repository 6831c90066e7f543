//! An echo on xebec's own listeners, without decode, queue and engine: what the network side alone costs.
//!
//! Greets as `xebec serve` does, and answers every request over HTTP and gRPC with its own body.
#![expect(clippy::print_stdout, reason = "the greeting is the output")]
use bytes::Bytes;
use http::{Response, request::Parts};
use std::{io::Write as _, sync::Arc, time::Duration};
use xebec_core::{Principal, port::Turn};
use xebec_net::{
    body::Body,
    drain::Drain,
    hosts::AllowedHosts,
    limits::Limits,
    listener,
    reactor::{Counters, Listeners, Reactor, Shared},
    service::{GrpcAnswer, GrpcCall, GrpcMessage, GrpcService, GrpcStatus, HttpService},
};

#[derive(Clone)]
struct Echo;

impl HttpService for Echo {
    async fn call(&self, _: &Principal, _: Parts, body: Body) -> Response<Bytes> {
        Response::new(body.read(1 << 20).await.map(|received| received.clone()).unwrap_or_default())
    }
}

impl GrpcService for Echo {
    fn accept(&self, _: &str) -> Result<(), GrpcStatus> {
        Ok(())
    }

    async fn call(&self, call: GrpcCall<'_>) -> Result<GrpcAnswer, GrpcStatus> {
        Ok(GrpcAnswer::One(GrpcMessage::raw(&call.message)))
    }
}

struct Nothing;

impl Turn for Nothing {
    fn flush(&self) {}
}

fn main() -> anyhow::Result<()> {
    let loopback = ([127, 0, 0, 1], 0).into();
    let listeners: Listeners<Echo, Echo, Echo> = Listeners {
        http: Some((listener::bind(loopback, 1)?, Echo)),
        grpc: Some((listener::bind(loopback, 1)?, Echo)),
        metrics: None,
    };
    let address = |bound: &Option<(listener::Bound, Echo)>| bound.as_ref().map(|(bound, _)| bound.address);
    let (http, grpc) = (address(&listeners.http), address(&listeners.grpc));
    let shared = Shared {
        limits: Limits::default(),
        drain: Drain::new(Duration::from_secs(1)),
        turn: Arc::new(Nothing),
        counters: Arc::new(Counters::default()),
        hosts: AllowedHosts::default(),
    };
    let reactor = Reactor::start(1, listeners, &shared)?;
    if let (Some(http), Some(grpc)) = (http, grpc) {
        println!("http     http://{http}\ngrpc     {grpc}\nmetrics  http://{http}/metrics\nready");
        std::io::stdout().flush()?;
    }
    reactor.join();
    Ok(())
}
