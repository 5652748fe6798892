//! The lease of a copy: while it exists, containerd's garbage collection keeps what the copy stored, though no image
//! refers to it yet.

use super::call::{Scope, unary};
use super::connection::Connection;
use super::messages::{CreateLeaseRequest, DeleteLeaseRequest};
use super::status::{Failure, code};
use crate::image::Digest;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The lifetime of the lease of a copy that was killed. containerd keeps an unfinished blob as long, so that a copy can
/// be resumed the next day.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Creates a lease in the namespace of `scope`; returns its id.
pub(super) fn create(connection: &Arc<Connection>, scope: &Scope) -> Result<String, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = format!("{now:?} {} {:?}", std::process::id(), std::thread::current().id());
    let id = format!("imgmv-{}", &Digest::of(seed.as_bytes()).hex()[..16]);
    let expire = ("containerd.io/gc.expire".to_owned(), rfc3339((now + LIFETIME).as_secs()));
    let request = CreateLeaseRequest { id: id.clone(), labels: HashMap::from([expire]) };
    unary(connection, "containerd.services.leases.v1.Leases/Create", scope, &request, MAX_ANSWER_BYTES)?;
    Ok(id)
}

/// Deletes the lease `id`. One that does not exist is not an error.
pub(super) fn delete(connection: &Arc<Connection>, scope: &Scope, id: &str) -> Result<(), Failure> {
    end(connection, scope, id, false)
}

/// Lets containerd collect garbage, and waits until it has: it does so for a lease that is deleted with `sync`.
pub(super) fn collect_garbage(connection: &Arc<Connection>, scope: &Scope) -> Result<(), Failure> {
    let id = create(connection, scope)?;
    end(connection, scope, &id, true)
}

fn end(connection: &Arc<Connection>, scope: &Scope, id: &str, sync: bool) -> Result<(), Failure> {
    let request = DeleteLeaseRequest { id: id.to_owned(), sync };
    match unary(connection, "containerd.services.leases.v1.Leases/Delete", scope, &request, MAX_ANSWER_BYTES) {
        Err(failure) if !failure.is(code::NOT_FOUND) => Err(failure),
        _ => Ok(()),
    }
}

/// Writes seconds since 1970 as `2026-11-28T21:45:00Z` (RFC 3339).
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years counted from March, so that the day of a leap year is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_are_written_as_containerd_parses_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_902_300, "2026-11-28T21:45:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
