//! Open uploads, between their requests. A new request for an upload ends the request that still writes to it: its
//! client has lost the connection, and needs to know which bytes arrived.

use crate::image::Algorithm;
use crate::serve::backend::writable::WritableBackend;
use crate::serve::http::errors::{ApiError, ErrorCode};
use crate::serve::http::reply::blocking;
use crate::transport::layout::{PushedLayout, Upload};
use hyper::StatusCode;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::timeout;

/// The maximum number of open uploads; others are resumed from disk.
const OPEN: usize = 256;
/// The time for the previous request to release an upload; it writes at most one buffer.
const LETTING_GO: Duration = Duration::from_secs(30);

/// All open uploads of a server.
#[derive(Default)]
pub struct UploadSessions(Mutex<HashMap<String, Arc<UploadSession>>>);

struct UploadSession {
    repository: String,
    upload: Arc<tokio::sync::Mutex<Option<Upload>>>,
    /// The number of the latest request for this upload.
    turn: watch::Sender<u64>,
    touched: Mutex<Instant>,
}

/// Exclusive access to one upload, until another request claims it.
pub struct UploadGuard {
    session: Arc<UploadSession>,
    guard: OwnedMutexGuard<Option<Upload>>,
    mine: u64,
    turn: watch::Receiver<u64>,
}

impl UploadSessions {
    /// Starts an upload in `layout`, the layout of `repository`.
    pub async fn begin(
        &self,
        repository: &str,
        layout: PushedLayout,
        algorithm: Algorithm,
    ) -> Result<UploadGuard, ApiError> {
        let upload = blocking(move || layout.begin(algorithm)).await??;
        let id = upload.id().to_owned();
        let session = self.keep(id, repository, upload);
        UploadGuard::take(session).await
    }

    /// Resumes the upload `id` of `repository`, also one that a previous process started.
    pub async fn resume(
        &self,
        repository: &str,
        id: &str,
        writable: &Arc<WritableBackend>,
    ) -> Result<UploadGuard, ApiError> {
        let unknown = || {
            ApiError::not_found(
                ErrorCode::BlobUploadUnknown,
                "upload not found; it was completed, cancelled or removed",
            )
        };
        let known = self.all().get(id).cloned();
        let session = match known {
            Some(session) => session,
            None => {
                let (writable, name, wanted) = (writable.clone(), repository.to_owned(), id.to_owned());
                let found = blocking(move || match writable.layout(&name)? {
                    Some(layout) => layout.take_up(&wanted),
                    None => Ok(None),
                });
                let upload = found.await??;
                match upload {
                    Some(upload) => self.keep(id.to_owned(), repository, upload),
                    // Another request may have resumed it in the meantime.
                    None => self.all().get(id).cloned().ok_or_else(unknown)?,
                }
            }
        };
        if session.repository != repository {
            return Err(unknown());
        }
        let turn = UploadGuard::take(session).await?;
        match turn.guard.is_some() {
            true => Ok(turn),
            false => Err(unknown()),
        }
    }

    /// Removes a completed or cancelled upload.
    pub fn end(&self, id: &str) {
        self.all().remove(id);
    }

    /// Closes uploads without a request in `life`, so that their files can be removed.
    pub fn let_go(&self, life: Duration) {
        self.all().retain(|_, session| {
            session.touched.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < life
                || Arc::strong_count(session) > 1
        });
    }

    fn keep(&self, id: String, repository: &str, upload: Upload) -> Arc<UploadSession> {
        let session = Arc::new(UploadSession {
            repository: repository.to_owned(),
            upload: Arc::new(tokio::sync::Mutex::new(Some(upload))),
            turn: watch::Sender::new(0),
            touched: Mutex::new(Instant::now()),
        });
        let mut all = self.all();
        if all.len() >= OPEN {
            let idle = all.iter().filter(|(_, session)| Arc::strong_count(session) == 1);
            let oldest =
                idle.min_by_key(|(_, session)| *session.touched.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                all.remove(&id);
            }
        }
        all.insert(id, session.clone());
        session
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<UploadSession>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UploadGuard {
    async fn take(session: Arc<UploadSession>) -> Result<UploadGuard, ApiError> {
        let busy = || {
            ApiError::new(
                StatusCode::CONFLICT,
                ErrorCode::BlobUploadInvalid,
                "another request still writes to this upload; retry later",
            )
        };
        let mut mine = 0;
        session.turn.send_modify(|turn| {
            *turn += 1;
            mine = *turn;
        });
        let turn = session.turn.subscribe();
        let guard = timeout(LETTING_GO, session.upload.clone().lock_owned()).await.map_err(|_| busy())?;
        *session.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(UploadGuard { session, guard, mine, turn })
    }

    /// Completes when another request claims the upload.
    pub async fn superseded(&mut self) {
        let mine = self.mine;
        // Fails only if the session was dropped; this guard holds it.
        let _ = self.turn.wait_for(|turn| *turn > mine).await;
    }

    /// Takes the upload out; the caller puts it back, completes it or cancels it.
    pub fn take_out(&mut self) -> Result<Upload, ApiError> {
        let over = || ApiError::not_found(ErrorCode::BlobUploadUnknown, "the upload is already completed or cancelled");
        self.guard.take().ok_or_else(over)
    }

    pub fn put_back(&mut self, upload: Upload) {
        *self.guard = Some(upload);
        *self.session.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The number of received bytes.
    pub fn size(&self) -> u64 {
        self.guard.as_ref().map_or(0, Upload::size)
    }

    pub fn id(&self) -> String {
        self.guard.as_ref().map(|upload| upload.id().to_owned()).unwrap_or_default()
    }
}
