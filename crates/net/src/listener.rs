//! One listening socket per I/O core on the same port (`SO_REUSEPORT`): the kernel spreads connections.
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener},
};

/// Connections the kernel keeps for a core that is busy.
const BACKLOG: i32 = 1024;

/// The sockets of one listener.
#[derive(Debug)]
pub struct Bound {
    /// Where clients reach it, with the port that was chosen if 0 was asked for.
    pub address: SocketAddr,
    pub(crate) sockets: Vec<TcpListener>,
}

/// An address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// What was asked for.
    pub address: SocketAddr,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

/// Listens on `address` once per core.
///
/// # Errors
/// The port is taken, also by another server that would share it, or the address is not of this machine.
pub fn bind(address: SocketAddr, cores: usize) -> Result<Bound, BindError> {
    bind_all(address, cores.max(1)).map_err(|source| BindError { address, source })
}

fn bind_all(address: SocketAddr, cores: usize) -> io::Result<Bound> {
    // A second server of the same user could silently share the port: the first socket asks for it alone.
    let alone = socket(address, false)?;
    let address = local(&alone)?;
    drop(alone);
    let sockets =
        (0..cores).map(|_| socket(address, true).map(TcpListener::from)).collect::<io::Result<_>>()?;
    Ok(Bound { address, sockets })
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without it a restart has to wait for the connections that the last process closed.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("the socket has no address of IP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_listens_on_the_one_port_that_was_chosen() {
        let bound = bind(([127, 0, 0, 1], 0).into(), 3).unwrap();
        assert_ne!(bound.address.port(), 0);
        for socket in &bound.sockets {
            assert_eq!(socket.local_addr().unwrap(), bound.address);
        }
    }

    #[test]
    fn a_port_that_another_server_listens_on_is_not_shared_with_it() {
        let first = bind(([127, 0, 0, 1], 0).into(), 2).unwrap();
        let error = bind(first.address, 2).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }
}
