//! What is read whole before it is sent: a file or standard input.

use std::{io::Read as _, path::Path};

use quorate_runtime::Env;

use crate::exit::{Exit, Failure};

/// The most that is read, in bytes: more than any node takes.
const MAX_DATA: u64 = 64 << 20;

/// The content of the file at `path`; `-` is standard input.
pub(crate) async fn read(path: &str, env: &Env) -> Result<Vec<u8>, Failure> {
    if path == "-" {
        return whole("standard input", env, || Ok(Box::new(std::io::stdin()))).await;
    }
    let (disk, of_path) = (env.disk().clone(), path.to_owned());
    whole(path, env, move || disk.open(Path::new(&of_path))).await
}

async fn whole(
    name: &str,
    env: &Env,
    open: impl FnOnce() -> std::io::Result<Box<dyn std::io::Read + Send>> + Send + 'static,
) -> Result<Vec<u8>, Failure> {
    let reading = env.run_blocking(move || {
        let mut bytes = Vec::new();
        open()?.take(MAX_DATA + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = reading.await.map_err(|cause| Failure::io(name, &cause))?;
    if bytes.len() as u64 > MAX_DATA {
        return Err(Failure::new(Exit::BadInput, format!("{name} holds more than {MAX_DATA} bytes")));
    }
    Ok(bytes)
}
