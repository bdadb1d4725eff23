//! How many connections there may be, and what becomes of one too many.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::Settings;

/// Connections beyond `max_connections` at most: to each its refusal, and health and metrics.
const RESERVE: usize = 64;
/// Descriptors that are left for files, libraries and trainings.
const OTHER_DESCRIPTORS: u64 = 192;
/// More descriptors than this are not asked for.
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// The places for connections.
#[derive(Debug, Clone)]
pub(super) struct Places {
    most: usize,
    places: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
}

/// A connection's place, free again when it ends.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    /// Whether it is one too many.
    pub(super) in_reserve: bool,
}

/// On requests of a connection that is one too many.
#[derive(Debug, Clone, Copy)]
pub(super) struct InReserve;

impl Places {
    /// As many as the settings say and the system has descriptors for.
    pub(super) fn new(settings: &Settings) -> Self {
        let limit = descriptors();
        let most = affordable(settings.max_connections, limit);
        if most < settings.max_connections {
            tracing::warn!(
                descriptors = limit,
                max_connections = settings.max_connections,
                connections = most,
                "the limit on open files is too low for max_connections: fewer connections are taken; raise it \
                 (`ulimit -Hn`, systemd: LimitNOFILE)"
            );
        }
        Self::of(most)
    }

    fn of(most: usize) -> Self {
        let semaphore = |places: usize| Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { most, places: semaphore(most), reserve: semaphore(RESERVE.min(most / 4 + 1)) }
    }

    /// A place for the next connection; waits where even the reserve is full.
    pub(super) async fn next(&self) -> Option<Place> {
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Some(Place { _permit: permit, in_reserve: false });
        }
        let permit = self.reserve.clone().acquire_owned().await.ok()?;
        Some(Place { _permit: permit, in_reserve: true })
    }

    /// Whether less than an eighth of the places is free.
    pub(super) fn are_short(&self) -> bool {
        self.places.available_permits() < self.most.div_ceil(8)
    }
}

/// How many connections so many descriptors are enough for.
fn affordable(wanted: usize, descriptors: u64) -> usize {
    let others = (OTHER_DESCRIPTORS + RESERVE as u64).min(descriptors / 2);
    wanted.min(usize::try_from(descriptors - others).unwrap_or(usize::MAX)).max(1)
}

/// Raises the limit on open files as far as that is allowed, and says what it is.
fn descriptors() -> u64 {
    match rlimit::increase_nofile_limit(MOST_DESCRIPTORS) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files cannot be raised");
            rlimit::Resource::NOFILE.get().map_or(1024, |(soft, _)| soft)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_bound_the_connections() {
        assert_eq!(affordable(4096, 1 << 20), 4096);
        assert_eq!(affordable(4096, 1024), 768);
        assert_eq!(affordable(4096, 100), 50);
        assert_eq!(affordable(4096, 0), 1);
        assert_eq!(affordable(7, 1024), 7);
    }

    #[tokio::test]
    async fn one_too_many_gets_a_place_in_the_reserve() {
        let places = Places::of(2);
        let first = places.next().await.unwrap();
        assert!(!places.are_short());
        let second = places.next().await.unwrap();
        let third = places.next().await.unwrap();
        assert_eq!([first.in_reserve, second.in_reserve, third.in_reserve], [false, false, true]);
        assert!(places.are_short());
        drop(first);
        assert!(!places.next().await.unwrap().in_reserve);
    }
}
