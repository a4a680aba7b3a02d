//! Where the application's tables are, and as whom its statements run.
//!
//! The name of the schema is that of the role as well. The role logs in nowhere and has rights on that schema alone, so that
//! the server itself keeps statements of the application away from the log and from the tables of rooms.

use tokio_postgres::{Client, types::Type};

use super::{fault::Fault, tables::refused};
use crate::store::OpenError;

/// Makes the role if it is not there, and sees that statements can run as it.
pub(super) async fn prepare_role(client: &Client, name: &str) -> Result<(), OpenError> {
    const LOOK: &str = "SELECT rolsuper, pg_has_role(oid,
            CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END), current_user::text
        FROM pg_roles WHERE rolname = $1";
    let look = async || client.query_typed_opt(LOOK, &[(&name, Type::TEXT)]).await.map_err(refused);
    if look().await?.is_none()
        && let Err(failed) = client.batch_execute(&format!("CREATE ROLE \"{name}\" NOLOGIN")).await
    {
        let fault = Fault::from(failed);
        // Another node may have been faster, also one of another database: roles are the whole server's.
        let is_there = ["42710", "23505"].iter().any(|code| fault.has_code(code));
        if !is_there {
            return Err(advice(fault, format!("CREATE ROLE \"{name}\" NOLOGIN")));
        }
    }
    let found = look().await?;
    let Some(row) = found else {
        return Err(OpenError::Unsuitable { what: format!("role `{name}` was dropped while the store was opened") });
    };
    let (is_super, may_be, user): (bool, bool, &str) = (row.get(0), row.get(1), row.get(2));
    if is_super {
        let what =
            format!("role `{name}`, as which the application's statements run, is a superuser: name another one");
        return Err(OpenError::Unsuitable { what });
    }
    if !may_be {
        let grant = format!("GRANT \"{name}\" TO \"{}\"", user.replace('"', "\"\""));
        client.batch_execute(&grant).await.map_err(|failed| advice(failed.into(), grant))?;
    }
    Ok(())
}

/// Makes the schema if it is not there, and sees that the role has it, and not the store's, which is `store`. In a transaction.
pub(super) async fn prepare_schema(client: &Client, name: &str, store: &str) -> Result<(), OpenError> {
    const LOOK: &str =
        "SELECT has_schema_privilege($1::text, oid, 'USAGE') AND has_schema_privilege($1::text, oid, 'CREATE')
        FROM pg_namespace WHERE nspname = $1";
    const REACHES: &str =
        "SELECT has_schema_privilege($1::text, oid, 'USAGE') OR has_schema_privilege($1::text, oid, 'CREATE')
        FROM pg_namespace WHERE nspname = $2";
    let mend = match client.query_typed_opt(LOOK, &[(&name, Type::TEXT)]).await.map_err(refused)? {
        None => Some(format!("CREATE SCHEMA \"{name}\" AUTHORIZATION \"{name}\"")),
        Some(row) if row.get(0) => None,
        Some(_) => Some(format!("GRANT USAGE, CREATE ON SCHEMA \"{name}\" TO \"{name}\"")),
    };
    if let Some(mend) = mend {
        client.batch_execute(&mend).await.map_err(|failed| advice(failed.into(), mend))?;
    }
    let reaches = [(&name as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT), (&store, Type::TEXT)];
    let reaches = client.query_typed_opt(REACHES, &reaches).await.map_err(refused)?;
    if reaches.is_some_and(|row| row.get(0)) {
        let what = format!(
            "role `{name}`, as which the application's statements run, has rights on schema `{store}`, \
            which is the store's: REVOKE ALL ON SCHEMA \"{store}\" FROM \"{name}\", and from PUBLIC"
        );
        return Err(OpenError::Unsuitable { what });
    }
    Ok(())
}

/// Whoever may not do it themselves is told what somebody else has to.
fn advice(fault: Fault, statement: String) -> OpenError {
    if fault.has_code("42501") {
        let what = format!(
            "its user may not do what the application's tables need ({fault}). Once, as somebody who may: {statement}"
        );
        return OpenError::Unsuitable { what };
    }
    OpenError::Store(fault.into_store("preparing the application's schema"))
}
