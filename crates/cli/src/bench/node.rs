//! A node in a process of its own, and a client that does nothing but write and read bytes.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{failed, log::Folder};
use crate::exit::Failure;

/// A node that is killed with its handle.
pub(super) struct Node {
    child: Child,
    pub(super) address: String,
}

impl Node {
    pub(super) fn start(folder: &Folder) -> Result<Self, Failure> {
        let starting = |cause: std::io::Error| failed("starting a node", cause);
        let program = std::env::current_exe().map_err(starting)?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.file("node"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(starting)?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(starting)?;
        }
        let address = line.trim().trim_start_matches("http://").to_owned();
        Ok(Self { child, address })
    }

    /// Resident memory in megabytes.
    pub(super) fn resident(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.map_err(|cause| failed("reading the node's memory", cause))?;
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        kilobytes
            .map(|kilobytes| kilobytes / 1024.0)
            .ok_or_else(|| failed("reading the node's memory", "there is no VmRSS"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection, kept alive.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) buffer: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|cause| cause.to_string())?;
        stream.set_nodelay(true).map_err(|cause| cause.to_string())?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 << 10) })
    }

    /// Sends a request and reads its reply; returns status and body.
    pub(super) async fn call(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>), String> {
        self.stream.write_all(request).await.map_err(|cause| cause.to_string())?;
        self.buffer.clear();
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        let status = text.get(9..12).and_then(|code| code.parse().ok()).ok_or("no status")?;
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        match length {
            Some(length) => {
                while self.buffer.len() < head + length {
                    self.more().await?;
                }
                Ok((status, self.buffer[head..head + length].to_vec()))
            }
            None if text.contains("transfer-encoding: chunked") => {
                while !self.buffer.ends_with(b"0\r\n\r\n") {
                    self.more().await?;
                }
                Ok((status, self.buffer[head..].to_vec()))
            }
            None => Err("a reply without a length".to_owned()),
        }
    }

    pub(super) async fn more(&mut self) -> Result<(), String> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err("the node closed the connection".to_owned()),
            Ok(_) => Ok(()),
            Err(cause) => Err(cause.to_string()),
        }
    }
}

pub(super) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, what)
}

pub(super) fn post(path: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}
