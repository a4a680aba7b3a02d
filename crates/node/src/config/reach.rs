//! How a broker is reached: its address, and the password of who connects.

use std::{io, path::PathBuf};

use quorate_communication::transports::{Address, AddressError};
use quorate_runtime::Env;

/// How a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Where it is.
    pub address: Address,
    /// The password of the user that the address names.
    pub password: Password,
}

/// Where a password is.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// There is none, or it stands in the address.
    None,
    /// This is it.
    Given(String),
    /// In this file.
    InFile(PathBuf),
}

/// Why a broker cannot be reached as is said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    #[error("the file with the password cannot be read: {0}")]
    PasswordFile(io::Error),
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// The largest file that holds a password, in bytes.
const MAX_PASSWORD_BYTES: u64 = 4_096;

impl Reach {
    pub(super) fn new(address: &str, password: String, file: PathBuf, variable: &str) -> Result<Self, String> {
        let address: Address = address.parse().map_err(|wrong| format!("`transport`: {wrong}"))?;
        let password = match (password.is_empty(), file.as_os_str().is_empty()) {
            (false, true) => Password::Given(password),
            (true, false) if variable.is_empty() => Password::InFile(file),
            (true, true) if variable.is_empty() => Password::None,
            (true, true) => {
                return Err(format!("`password-variable`: there is no environment variable `{variable}`"));
            }
            _ => return Err("of `password`, `password-file` and `password-variable` one is given".to_owned()),
        };
        if password != Password::None && !address.lacks_password() {
            return Err("a password is given, and `transport` names no user, or holds one itself".to_owned());
        }
        Ok(Self { address, password })
    }

    /// The address with the password in it, which is read now where it stands in a file.
    pub(crate) async fn whole(&self, env: &Env) -> Result<Address, ReachError> {
        let password = match &self.password {
            Password::None => return Ok(self.address.clone()),
            Password::Given(password) => password.clone(),
            Password::InFile(path) => {
                let (disk, path) = (env.disk().clone(), path.clone());
                let read = env.run_blocking(move || match disk.size(&path)? {
                    ..=MAX_PASSWORD_BYTES => String::from_utf8(disk.read(&path)?).map_err(io::Error::other),
                    bytes => Err(io::Error::other(format!("it has {bytes} bytes, and may have {MAX_PASSWORD_BYTES}"))),
                });
                read.await.map_err(ReachError::PasswordFile)?.trim().to_owned()
            }
        };
        Ok(self.address.with_password(&password)?)
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Given(_) => f.write_str("Given(…)"),
            Self::InFile(path) => write!(f, "InFile({})", path.display()),
        }
    }
}
