//! The server: who may connect, and to what.

use super::http::{self, Request};
use super::options::WebOptions;
use super::session;
use crate::screenshot::write_png;
use crate::server::{Clients, Server};
use crate::stream::{Listener, Stream};
use crate::{Controls, Display};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request's head has to come within this.
const HEAD: Duration = Duration::from_secs(10);

/// A client that takes no data for so long is gone.
const WRITE: Duration = Duration::from_secs(30);

/// After a wrong token.
const WRONG_TOKEN: Duration = Duration::from_secs(1);

/// A server that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the web console cannot listen on {address}: {error}")]
    Listen { address: String, error: io::Error },
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

/// A web console; it ends when it is dropped.
pub struct WebServer {
    shared: Arc<Shared>,
    _server: Server,
    address: SocketAddr,
}

pub(super) struct Shared {
    pub(super) display: Arc<Display>,
    pub(super) controls: Arc<dyn Controls>,
    /// 32 hexadecimal digits.
    token: String,
    names: Vec<String>,
    clients: Arc<Clients>,
}

impl WebServer {
    /// Listens, and serves on threads of its own.
    pub fn start(
        display: Arc<Display>,
        controls: Arc<dyn Controls>,
        options: &WebOptions,
    ) -> Result<WebServer, StartError> {
        let failed = |error| StartError::Listen {
            address: format!("{}:{}", options.host, options.port),
            error,
        };
        let places: Vec<SocketAddr> = (options.host.as_str(), options.port)
            .to_socket_addrs()
            .map_err(failed)?
            .collect();
        let listener = TcpListener::bind(&places[..]).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let listener = Listener::Tcp(listener);
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(StartError::Random)?;
        let shared = Arc::new(Shared {
            display,
            controls,
            token: secret.iter().map(|byte| format!("{byte:02x}")).collect(),
            names: options.names.clone(),
            clients: Arc::default(),
        });
        let serving = shared.clone();
        let server = Server::start("web", listener, &shared.clients, move |stream, _| {
            serve(&serving, stream)
        })
        .map_err(failed)?;
        Ok(WebServer {
            shared,
            _server: server,
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to give a browser. It lets whoever has it use the machine.
    pub fn url(&self) -> String {
        format!("http://{}/{}/", self.address, self.shared.token)
    }

    /// Connections, pages' sockets among them.
    pub fn clients(&self) -> usize {
        self.shared.clients.count()
    }
}

fn serve(shared: &Arc<Shared>, mut stream: Stream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_timeouts(Some(HEAD), Some(WRITE))?;
    let request = http::read(&mut stream, Instant::now() + HEAD)?;
    let plain = |stream: &mut Stream, status: &str, text: &str| {
        http::answer(
            stream,
            status,
            "text/plain; charset=utf-8",
            "default-src 'none'",
            text.as_bytes(),
        )
    };
    let Some(host) = request
        .host
        .as_deref()
        .filter(|host| http::is_ours(host, &shared.names))
    else {
        return plain(
            &mut stream,
            "421 Misdirected Request",
            "This host is not known by that name here: -display web=…,name=NAME makes it known.\n",
        );
    };
    if request.method != "GET" {
        return plain(&mut stream, "405 Method Not Allowed", "Only GET.\n");
    }
    let mut parts = request.path.trim_start_matches('/').splitn(2, '/');
    let token = parts.next().unwrap_or_default();
    if !same(token, &shared.token) {
        std::thread::sleep(WRONG_TOKEN);
        return plain(
            &mut stream,
            "403 Forbidden",
            "The address needs the token that Dormer printed when it started.\n",
        );
    }
    if !http::same_origin(request.origin.as_deref(), host) {
        return plain(
            &mut stream,
            "403 Forbidden",
            "Not from a page of another site.\n",
        );
    }
    match parts.next() {
        None => {
            let to = format!(
                "HTTP/1.1 308 Permanent Redirect\r\nLocation: /{}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                shared.token
            );
            stream.write_all(to.as_bytes())
        }
        Some("socket") => upgrade(shared, stream, request),
        Some("screen.png") => screenshot(shared, &mut stream),
        Some(name) => match file(name) {
            Some((kind, body)) => {
                let policy = format!(
                    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                     connect-src 'self' ws://{host} wss://{host}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
                );
                http::answer(&mut stream, "200 OK", kind, &policy, body.as_bytes())
            }
            None => plain(&mut stream, "404 Not Found", "There is nothing here.\n"),
        },
    }
}

/// The page.
fn file(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "" => ("text/html; charset=utf-8", include_str!("page/index.html")),
        "client.js" => (
            "text/javascript; charset=utf-8",
            include_str!("page/client.js"),
        ),
        "style.css" => ("text/css; charset=utf-8", include_str!("page/style.css")),
        _ => return None,
    })
}

/// Compares in a time that tells nothing of where the difference is.
fn same(given: &str, token: &str) -> bool {
    let (given, token) = (given.as_bytes(), token.as_bytes());
    given.len() == token.len()
        && std::hint::black_box(given.iter().zip(token).fold(0, |d, (a, b)| d | (a ^ b))) == 0
}

fn screenshot(shared: &Shared, stream: &mut Stream) -> io::Result<()> {
    let mut png = Vec::new();
    let (status, kind) = match shared.display.capture() {
        Some(surface) => {
            write_png(&surface, &mut png)?;
            ("200 OK", "image/png")
        }
        None => {
            png.extend_from_slice(b"There is no picture on the screen yet.\n");
            ("503 Service Unavailable", "text/plain; charset=utf-8")
        }
    };
    http::answer(stream, status, kind, "default-src 'none'", &png)
}

fn upgrade(shared: &Arc<Shared>, mut stream: Stream, request: Request) -> io::Result<()> {
    let Some(key) = request.websocket_key else {
        let policy = "default-src 'none'";
        let text = b"This is for WebSockets.\n";
        return http::answer(
            &mut stream,
            "426 Upgrade Required",
            "text/plain",
            policy,
            text,
        );
    };
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.set_timeouts(None, Some(WRITE))?;
    session::run(stream, request.rest, shared)
}
