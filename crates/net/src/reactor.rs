//! The I/O cores: one thread each with a runtime, its own listening sockets and its own connections.
//!
//! When every task that was ready has run, a core's turn is over: what the turn has read is run as one batch
//! ([`Turn::flush`]) before the thread looks at the network again.
use crate::{
    budget::Budget,
    conn::{Conn, GOODBYE, Order, Phase, TICK},
    drain::{Drain, Place},
    grpc,
    hosts::{AllowedHosts, Foreign, Hosts},
    http1::{self, date::Date},
    limits::Limits,
    listener::Bound,
    service::{GrpcService, HttpService},
};
use http::HeaderMap;
use slab::Slab;
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    thread::JoinHandle,
    time::{Instant, SystemTime},
};
use tokio::{net::TcpStream, runtime::LocalOptions, sync::watch};
use xebec_core::{
    Principal,
    metrics::{Counter, Gauge},
    port::Turn,
};

/// Counts of the network side.
#[derive(Debug, Default)]
pub struct Counters {
    /// Open connections per listener.
    pub connections: [Gauge; 3],
    /// Connections closed at once because there were too many, per listener.
    pub refused: [Counter; 3],
    /// Requests for other hosts or from their web pages, per listener.
    pub foreign: [Counter; 3],
    /// Requests that ended in a panic.
    pub panics: Counter,
}

/// The three listeners, as an index into [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// HTTP/1.1.
    Http = 0,
    /// gRPC.
    Grpc = 1,
    /// Metrics.
    Metrics = 2,
}

impl Listener {
    /// All of them, in the order of [`Counters`].
    pub const ALL: [Self; 3] = [Self::Http, Self::Grpc, Self::Metrics];

    /// Its label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Metrics => "metrics",
        }
    }
}

/// What is served where; each listener is optional.
#[derive(Debug)]
pub struct Listeners<H, G, M> {
    /// Protocols over HTTP/1.1.
    pub http: Option<(Bound, H)>,
    /// Protocols over gRPC.
    pub grpc: Option<(Bound, G)>,
    /// The metrics page, served by the first core.
    pub metrics: Option<(Bound, M)>,
}

/// What all cores share.
#[derive(Clone)]
pub struct Shared {
    /// Limits.
    pub limits: Limits,
    /// Whether to stop.
    pub drain: Drain,
    /// Runs what a turn has collected.
    pub turn: Arc<dyn Turn>,
    /// Counts.
    pub counters: Arc<Counters>,
    /// Hosts that requests may be for.
    pub hosts: AllowedHosts,
}

/// The running I/O cores.
#[derive(Debug)]
pub struct Reactor(Vec<JoinHandle<()>>);

/// One core's own state.
pub(crate) struct Core {
    pub(crate) limits: Limits,
    pub(crate) drain: Drain,
    pub(crate) budget: Rc<Budget>,
    pub(crate) counters: Arc<Counters>,
    turn: Arc<dyn Turn>,
    /// Requests of this turn that may wait for its end, and the task that ends it.
    work: Cell<u32>,
    ender: RefCell<Option<Waker>>,
    clock: Rc<Cell<u32>>,
    /// As of the last tick.
    pub(crate) date: Cell<Date>,
    conns: RefCell<Slab<(Rc<Conn>, bool)>>,
    /// Whether the drain has begun, for calls that would stay open.
    draining: watch::Sender<bool>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Core")
    }
}

impl Reactor {
    /// Starts `cores` threads that serve the listeners.
    ///
    /// # Errors
    /// A thread or a runtime cannot be made.
    pub fn start<H, G, M>(cores: usize, listeners: Listeners<H, G, M>, shared: &Shared) -> io::Result<Self>
    where
        H: HttpService + Clone + Send,
        G: GrpcService + Clone + Send,
        M: HttpService + Clone + Send,
    {
        let cores = cores.max(1);
        let mut http = per_core(listeners.http, Listener::Http, &shared.hosts);
        let mut grpc = per_core(listeners.grpc, Listener::Grpc, &shared.hosts);
        let mut metrics = per_core(listeners.metrics, Listener::Metrics, &shared.hosts);
        let mut threads = Vec::with_capacity(cores);
        shared.drain.expect(cores);
        for index in 0..cores {
            let own = (http.next(), grpc.next(), metrics.next());
            let shared = shared.clone();
            let body = move || match run_core(own, &shared, cores) {
                Ok(()) => {}
                Err(error) => tracing::error!(error = %error, "an i/o core could not start"),
            };
            threads.push(std::thread::Builder::new().name(format!("xebec-io-{index}")).spawn(body)?);
        }
        Ok(Self(threads))
    }

    /// Waits until every core has drained and stopped.
    pub fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("an i/o core ended in a panic");
            }
        }
    }
}

/// What one core serves on one listener.
#[derive(Clone)]
pub(crate) struct Port<S> {
    pub(crate) service: S,
    listener: Listener,
    hosts: Hosts,
}

impl<S> Port<S> {
    /// Judges whether a request is for this server, and counts one that is not.
    ///
    /// # Errors
    /// It is for another host, or from a web page of one.
    pub(crate) fn check(
        &self,
        target: Option<&[u8]>,
        headers: &HeaderMap,
        core: &Core,
    ) -> Result<(), Foreign> {
        let checked = self.hosts.check(target, headers);
        if checked.is_err()
            && let Some(foreign) = core.counters.foreign.get(self.listener as usize)
        {
            foreign.add(1);
        }
        checked
    }
}

type Own<S> = Option<(TcpListener, Port<S>)>;

fn per_core<S: Clone>(
    bound: Option<(Bound, S)>,
    listener: Listener,
    hosts: &AllowedHosts,
) -> impl Iterator<Item = (TcpListener, Port<S>)> {
    bound.into_iter().flat_map(move |(bound, service)| {
        let port = Port { service, listener, hosts: hosts.at(bound.address.ip()) };
        bound.sockets.into_iter().map(move |socket| (socket, port.clone())).collect::<Vec<_>>()
    })
}

fn run_core<H: HttpService, G: GrpcService, M: HttpService>(
    (http, grpc, metrics): (Own<H>, Own<G>, Own<M>),
    shared: &Shared,
    cores: usize,
) -> io::Result<()> {
    let place = shared.drain.place();
    let turn = Arc::clone(&shared.turn);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .on_thread_park(move || turn.flush())
        .build_local(LocalOptions::default())?;
    let core = Core::new(shared, cores);
    runtime.block_on(async move {
        let mut accepting = Vec::new();
        tokio::task::spawn_local(end_turns(Rc::clone(&core)));
        if let Some((socket, port)) = http {
            accepting.push(accept(socket, port, &core, http1::serve)?);
        }
        if let Some((socket, port)) = grpc {
            accepting.push(accept(socket, port, &core, grpc::serve)?);
        }
        if let Some((socket, port)) = metrics {
            accepting.push(accept(socket, port, &core, http1::serve)?);
        }
        core.sweep_until_drained(&place).await;
        // New connections are refused from here on; those that came while draining get the end of their answer.
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
        core.see_off().await;
        Ok(())
    })
}

/// Accepts connections and serves each in a task of this core.
fn accept<S: 'static, F: Future<Output = ()> + 'static>(
    socket: TcpListener,
    port: Port<S>,
    core: &Rc<Core>,
    serve: impl Fn(TcpStream, Principal, Rc<Port<S>>, Rc<Conn>, Rc<Core>) -> F + 'static,
) -> io::Result<tokio::task::JoinHandle<()>> {
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let (core, port) = (Rc::clone(core), Rc::new(port));
    Ok(tokio::task::spawn_local(async move {
        loop {
            match socket.accept().await {
                Ok((stream, peer)) => {
                    if let Some(guard) = core.admit(port.listener) {
                        prepare(&stream);
                        let conn = Rc::clone(&guard.conn);
                        let principal = Principal::Anonymous { peer };
                        let serving = serve(stream, principal, Rc::clone(&port), conn, Rc::clone(&core));
                        tokio::task::spawn_local(async move {
                            serving.await;
                            drop(guard);
                        });
                    } else {
                        turn_away(stream, port.listener);
                    }
                }
                Err(error) => {
                    // Out of file descriptors, most likely: the sockets in use must be closed first.
                    tracing::warn!(error = %error, "cannot accept a connection");
                    tokio::time::sleep(TICK).await;
                }
            }
        }
    }))
}

/// Tells a caller that there is no room for its connection, where its protocol has words for that. Nobody is waited for:
/// a caller that the words do not reach sees the end alone.
fn turn_away(stream: TcpStream, listener: Listener) {
    if listener != Listener::Grpc
        && let Ok(mut stream) = stream.into_std()
    {
        let _ = stream.write_all(&http1::too_many_connections());
    }
}

fn prepare(stream: &TcpStream) {
    // An answer is written whole: waiting for more only delays it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "cannot set TCP_NODELAY");
    }
}

/// A connection's place in its core's list.
struct Guard {
    core: Rc<Core>,
    conn: Rc<Conn>,
    key: usize,
    listener: Listener,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.core.conns.borrow_mut().try_remove(self.key);
        if let Some(gauge) = self.core.counters.connections.get(self.listener as usize) {
            gauge.add(-1);
        }
    }
}

/// Times that a turn may go round once more because requests have joined it.
const MOST_ROUNDS: u32 = 8;

/// Ends a turn once every task that was ready has run and no request has joined it meanwhile. Without it a core with
/// always something ready would never park, and so never end a turn.
async fn end_turns(core: Rc<Core>) {
    let (mut seen, mut rounds) = (0, 0);
    poll_fn(|cx| {
        let mut ender = core.ender.borrow_mut();
        if ender.is_none() {
            *ender = Some(cx.waker().clone());
        }
        let work = core.work.get();
        if work > seen && rounds < MOST_ROUNDS {
            (seen, rounds) = (work, rounds + 1);
            cx.waker().wake_by_ref();
        } else if work > 0 {
            core.work.set(0);
            (seen, rounds) = (0, 0);
            core.turn.flush();
        }
        Poll::Pending
    })
    .await
}

impl Core {
    /// One of `cores`.
    pub(crate) fn new(shared: &Shared, cores: usize) -> Rc<Self> {
        let limits = shared.limits;
        Rc::new(Self {
            limits,
            drain: shared.drain.clone(),
            budget: Budget::new(limits.max_buffered_bytes / cores),
            turn: Arc::clone(&shared.turn),
            work: Cell::new(0),
            ender: RefCell::new(None),
            counters: Arc::clone(&shared.counters),
            clock: Rc::new(Cell::new(0)),
            date: Cell::new(Date::at(SystemTime::now())),
            conns: RefCell::new(Slab::new()),
            draining: watch::Sender::new(false),
        })
    }

    /// Tells when the drain begins.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Notes that a request is about to be submitted, so that this turn gets its end.
    pub(crate) fn expect_work(&self) {
        let work = self.work.get();
        self.work.set(work.saturating_add(1));
        if work == 0
            && let Some(ender) = self.ender.borrow().as_ref()
        {
            ender.wake_by_ref();
        }
    }

    fn admit(self: &Rc<Self>, listener: Listener) -> Option<Guard> {
        let mut conns = self.conns.borrow_mut();
        // Counted per listener over all cores: a crowd on one must not close the others.
        let open = self.counters.connections.get(listener as usize).map_or(0, Gauge::get);
        if usize::try_from(open).unwrap_or(0) >= self.limits.max_connections {
            if let Some(refused) = self.counters.refused.get(listener as usize) {
                refused.add(1);
            }
            return None;
        }
        let conn = Conn::new(Rc::clone(&self.clock));
        let key = conns.insert((Rc::clone(&conn), self.drain.is_draining()));
        if let Some(gauge) = self.counters.connections.get(listener as usize) {
            gauge.add(1);
        }
        Some(Guard { core: Rc::clone(self), conn, key, listener })
    }

    /// Looks at every connection once a tick until those from before the drain are gone, here and on the other cores.
    async fn sweep_until_drained(&self, place: &Place) {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            self.sweep();
            let Some(deadline) = self.drain.deadline() else { continue };
            if self.old() == 0 {
                place.is_done();
            }
            if self.drain.all_done() || Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Gives what is still open a moment.
    async fn see_off(&self) {
        let mut ticks = ticks();
        for _ in 0..SEE_OFF_TICKS {
            if self.conns.borrow().is_empty()
                || self.drain.deadline().is_some_and(|end| Instant::now() >= end)
            {
                return;
            }
            self.sweep();
            ticks.tick().await;
        }
    }

    fn sweep(&self) {
        self.clock.set(self.clock.get().wrapping_add(1));
        self.date.set(self.date.get().renewed(SystemTime::now()));
        let draining = self.drain.is_draining();
        self.draining.send_if_modified(|known| std::mem::replace(known, draining) != draining);
        for (_, (conn, _)) in self.conns.borrow().iter() {
            conn.break_silence(&self.limits);
            match conn.judge(&self.limits) {
                // A head that has begun is a request that was read: it gets its answer first.
                Order::Go if draining && conn.phase() != Phase::Head => conn.command(Order::Finish),
                Order::Go => {}
                order => conn.command(order),
            }
        }
    }

    /// Connections from before the drain that are still open.
    fn old(&self) -> usize {
        self.conns.borrow().iter().filter(|(_, (_, late))| !late).count()
    }
}

/// Ticks that connections opened while draining get to read their refusal.
const SEE_OFF_TICKS: u128 = GOODBYE.as_millis() / TICK.as_millis();

fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    ticks
}

/// Where a listener can be reached.
pub fn address<S>(listener: Option<&(Bound, S)>) -> Option<SocketAddr> {
    listener.map(|(bound, _)| bound.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        time::Duration,
    };

    #[derive(Default)]
    struct Turns(AtomicUsize);

    impl Turn for Turns {
        fn flush(&self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_core_that_never_rests_ends_its_turns_all_the_same() {
        let turns = Arc::new(Turns::default());
        let shared = Shared {
            limits: Limits::default(),
            drain: Drain::new(Duration::from_secs(1)),
            turn: Arc::<Turns>::clone(&turns),
            counters: Arc::default(),
            hosts: AllowedHosts::default(),
        };
        // No hook on parking, and a task that is always ready: what is left is the end of a turn itself.
        let runtime =
            tokio::runtime::Builder::new_current_thread().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let core = Core::new(&shared, 1);
            tokio::task::spawn_local(end_turns(Rc::clone(&core)));
            for asked in 0..3 {
                tokio::task::yield_now().await;
                assert_eq!(turns.0.load(SeqCst), asked);
                core.expect_work();
                core.expect_work();
                while turns.0.load(SeqCst) == asked {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
}
