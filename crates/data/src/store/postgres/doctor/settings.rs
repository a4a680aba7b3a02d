//! What the server's settings do to what was acknowledged.

use super::Patient;
use crate::store::postgres::fault::Fault;

impl Patient {
    /// Whether nobody can write here. Looked at before a transaction of ours says READ ONLY itself.
    pub(super) async fn writes(&mut self) -> Result<bool, Fault> {
        let look = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')";
        let row = self.one(look, &[]).await?;
        let (is_standby, read_only): (bool, &str) = (row.try_get(0)?, row.try_get(1)?);
        if is_standby {
            self.danger(
                "standby",
                "the server is a standby: it takes no writes, and nobody gives positions",
                "name the primary in the address (postgres://u:p@one,two/db tries each in turn); after a failover, promote this \
                 one: SELECT pg_promote()",
            );
        } else if read_only == "on" {
            self.danger(
                "read-only",
                "transactions are read-only by default: no event can be appended",
                "ALTER DATABASE … or ALTER ROLE … RESET default_transaction_read_only, or reset it in postgresql.conf",
            );
        }
        Ok(is_standby || read_only == "on")
    }

    /// Settings that endanger what was acknowledged, and how many connections are left for a node that wants `connections`.
    pub(super) async fn settings(&mut self, connections: usize) -> Result<(), Fault> {
        const LOOK: &str = "SELECT current_setting('fsync'), current_setting('full_page_writes'),
            current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),
            current_setting('zero_damaged_pages'), current_setting('ignore_checksum_failure'),
            current_setting('autovacuum'), current_setting('track_counts'),
            current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,
            (SELECT sum(numbackends) FROM pg_stat_database)::bigint,
            pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), current_user::text";
        let row = self.one(LOOK, &[]).await?;
        let text = |n: usize| row.try_get::<_, &str>(n);
        let reload = |setting: &str, to: &str| {
            format!(
                "ALTER SYSTEM SET {setting} = {to}; SELECT pg_reload_conf(); look for it in postgresql.conf as well"
            )
        };
        if text(0)? != "on" {
            let what = "fsync is off: a crash of the machine may lose or damage anything that was ever committed";
            self.danger("fsync", what, reload("fsync", "on"));
        }
        if text(1)? != "on" {
            let what = "full_page_writes is off: a crash of the machine may leave pages of which one half is old";
            self.danger("full_page_writes", what, reload("full_page_writes", "on"));
        }
        self.commits(text(2)?, text(3)?);
        if text(4)? != "off" {
            let what = "zero_damaged_pages is on: a page that was damaged is read as if nothing had been on it";
            self.danger("zero_damaged_pages", what, reload("zero_damaged_pages", "off"));
        }
        if text(5)? != "off" {
            let what = "ignore_checksum_failure is on: damaged pages are served, and written back";
            self.danger("ignore_checksum_failure", what, reload("ignore_checksum_failure", "off"));
        }
        for (n, setting) in [(6, "autovacuum"), (7, "track_counts")] {
            if text(n)? != "on" {
                let what = format!("{setting} is off: dead rows stay, and one day the server stops to take writes");
                self.warn("autovacuum", what, reload(setting, "on"));
            }
        }
        let (most, used): (i64, i64) = (row.try_get(8)?, row.try_get(9)?);
        let wanted = i64::try_from(connections + (connections / 4).max(1) + 1).unwrap_or(i64::MAX);
        if most - used < wanted {
            let what = format!(
                "{used} of {most} connections are in use: one more node, which wants up to {wanted}, would not get them"
            );
            let advice = "raise max_connections, lower store.connections of the nodes, or put a pooling proxy between";
            self.warn("connections", what, advice);
        }
        if !row.try_get::<_, bool>(10)? {
            let user: &str = row.try_get(11)?;
            let what = format!("user `{user}` may not see what other users' sessions do: those were not looked at");
            self.note("rights", what, format!("GRANT pg_read_all_stats TO \"{}\"", user.replace('"', "\"\"")));
        }
        Ok(())
    }

    fn commits(&mut self, synchronous_commit: &str, standbys: &str) {
        let advice = "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf(); look for it in ALTER DATABASE and ALTER \
                      ROLE as well, and start nodes again that were started since";
        match synchronous_commit {
            "off" => {
                let what = "synchronous_commit is off: nodes that were started before, and everybody else, answer for commits that \
                            a crash may lose; nodes that start now override it";
                self.warn("synchronous_commit", what, advice);
            }
            weak @ ("local" | "remote_write") if !standbys.is_empty() => {
                let what = format!(
                    "synchronous_commit is {weak} although synchronous_standby_names names standbys: a failover may lose what \
                     was acknowledged"
                );
                self.danger("synchronous_commit", what, advice);
            }
            _ => {}
        }
    }
}
