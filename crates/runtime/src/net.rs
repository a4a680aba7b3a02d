//! Listening and dialling, as boxed byte streams.

#[cfg(target_os = "linux")]
use std::time::Duration;
use std::{future::ready, io, net::SocketAddr, path::Path};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::BoxFuture;

/// A bidirectional stream of bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The network as one host sees it.
pub trait Net: Send + Sync {
    /// Listens on `at`; port 0 picks a free one.
    fn listen(&self, at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;
    /// Dials `to`. Callers bring the deadline: a dial into a void never ends by itself.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>>;
    /// Dials the Unix socket at `path` of this machine. A network without any says so.
    fn connect_local(&self, path: &Path) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let none = format!("this network has no Unix sockets, and none at {}", path.display());
        Box::pin(ready(Err(io::Error::new(io::ErrorKind::Unsupported, none))))
    }
    /// The addresses of `host`, in the order in which they are to be tried. A network without names knows addresses alone.
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let found = host.parse().map(|address| vec![SocketAddr::new(address, port)]);
        let unknown = format!("`{host}` is no address, and this network has no names");
        Box::pin(ready(found.map_err(|_| io::Error::new(io::ErrorKind::NotFound, unknown))))
    }
}

/// A socket that accepts connections.
pub trait Listener: Send + Sync {
    /// Where it really listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The next connection and who dialled. Cancel safe.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Io>, SocketAddr)>>;
}

/// A machine that is gone says nothing: a connection that lies idle for so long is asked for a sign of life, so often, and ended if
/// none comes. It ends as well where what is sent is not acknowledged for so long, or the other side takes nothing for so long.
#[cfg(target_os = "linux")]
const IDLE: Duration = Duration::from_secs(10);
#[cfg(target_os = "linux")]
const PROBE: Duration = Duration::from_secs(5);
#[cfg(target_os = "linux")]
const PROBES: u32 = 4;
/// In milliseconds.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: u32 = 30_000;

/// TCP and Unix sockets of this machine; TCP with Nagle's algorithm off. On Linux what is dialled ends within half a minute where the other machine is
/// gone; elsewhere when the system says.
pub(crate) struct RealNet;

impl Net for RealNet {
    #[expect(clippy::disallowed_methods, reason = "the one place that opens listening sockets")]
    fn listen(&self, at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(
            async move { Ok(Box::new(RealListener(tokio::net::TcpListener::bind(at).await?)) as Box<dyn Listener>) },
        )
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        Box::pin(async move { Ok(Box::new(dial(to).await?) as Box<dyn Io>) })
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that dials")]
    fn connect_local(&self, path: &Path) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let path = path.to_owned();
        Box::pin(async move { Ok(Box::new(tokio::net::UnixStream::connect(path).await?) as Box<dyn Io>) })
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that dials")]
async fn dial(to: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    use rustix::net::sockopt;
    let stream = tokio::net::TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    #[cfg(target_os = "linux")]
    {
        sockopt::set_tcp_keepidle(&stream, IDLE)?;
        sockopt::set_tcp_keepintvl(&stream, PROBE)?;
        sockopt::set_tcp_keepcnt(&stream, PROBES)?;
        sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED)?;
    }
    Ok(stream)
}

struct RealListener(tokio::net::TcpListener);

impl Listener for RealListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Io>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn Io>, from))
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::net::sockopt;

    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the options are those of a real socket")]
    async fn what_is_dialled_is_asked_for_signs_of_life() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = dial(listener.local_addr().unwrap()).await.unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap() && stream.nodelay().unwrap());
        let gone = sockopt::tcp_keepidle(&stream).unwrap()
            + sockopt::tcp_keepintvl(&stream).unwrap() * sockopt::tcp_keepcnt(&stream).unwrap();
        assert_eq!(gone, Duration::from_secs(30));
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), UNACKNOWLEDGED);
    }
}
