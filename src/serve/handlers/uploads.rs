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
const MAX_OPEN: usize = 256;
/// The time for the previous request to release an upload; it writes at most one buffer.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);

/// All open uploads of a server.
#[derive(Default)]
pub struct UploadSessions(Mutex<HashMap<String, Arc<UploadSession>>>);

struct UploadSession {
    repository: String,
    upload: Arc<tokio::sync::Mutex<Option<Upload>>>,
    /// The number of the latest request for this upload.
    latest: watch::Sender<u64>,
    touched: Mutex<Instant>,
}

/// Exclusive access to one upload, until another request claims it.
pub struct UploadGuard {
    session: Arc<UploadSession>,
    upload: OwnedMutexGuard<Option<Upload>>,
    number: u64,
    latest: watch::Receiver<u64>,
}

impl UploadSessions {
    /// Starts an upload in `layout`, the layout of `repository`.
    pub async fn start(
        &self,
        repository: &str,
        layout: PushedLayout,
        algorithm: Algorithm,
    ) -> Result<UploadGuard, ApiError> {
        let upload = blocking(move || layout.start_upload(algorithm)).await??;
        let id = upload.id().to_owned();
        let session = self.insert(id, repository, upload);
        UploadGuard::claim(session).await
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
        let open = self.sessions().get(id).cloned();
        let session = match open {
            Some(session) => session,
            None => {
                let (writable, name, wanted) = (writable.clone(), repository.to_owned(), id.to_owned());
                let found = blocking(move || match writable.layout(&name)? {
                    Some(layout) => layout.resume_upload(&wanted),
                    None => Ok(None),
                });
                let upload = found.await??;
                match upload {
                    Some(upload) => self.insert(id.to_owned(), repository, upload),
                    // Another request may have resumed it in the meantime.
                    None => self.sessions().get(id).cloned().ok_or_else(unknown)?,
                }
            }
        };
        if session.repository != repository {
            return Err(unknown());
        }
        let guard = UploadGuard::claim(session).await?;
        match guard.upload.is_some() {
            true => Ok(guard),
            false => Err(unknown()),
        }
    }

    /// Removes a completed or cancelled upload.
    pub fn remove(&self, id: &str) {
        self.sessions().remove(id);
    }

    /// Closes uploads without a request in `lifetime`, so that their files can be removed.
    pub fn close_idle(&self, lifetime: Duration) {
        self.sessions().retain(|_, session| {
            session.touched.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < lifetime
                || Arc::strong_count(session) > 1
        });
    }

    fn insert(&self, id: String, repository: &str, upload: Upload) -> Arc<UploadSession> {
        let session = Arc::new(UploadSession {
            repository: repository.to_owned(),
            upload: Arc::new(tokio::sync::Mutex::new(Some(upload))),
            latest: watch::Sender::new(0),
            touched: Mutex::new(Instant::now()),
        });
        let mut sessions = self.sessions();
        if sessions.len() >= MAX_OPEN {
            let idle = sessions.iter().filter(|(_, session)| Arc::strong_count(session) == 1);
            let oldest =
                idle.min_by_key(|(_, session)| *session.touched.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                sessions.remove(&id);
            }
        }
        sessions.insert(id, session.clone());
        session
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<UploadSession>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UploadGuard {
    async fn claim(session: Arc<UploadSession>) -> Result<UploadGuard, ApiError> {
        let busy = || {
            ApiError::new(
                StatusCode::CONFLICT,
                ErrorCode::BlobUploadInvalid,
                "another request still writes to this upload; retry later",
            )
        };
        let mut number = 0;
        session.latest.send_modify(|latest| {
            *latest += 1;
            number = *latest;
        });
        let latest = session.latest.subscribe();
        let upload = timeout(RELEASE_TIMEOUT, session.upload.clone().lock_owned()).await.map_err(|_| busy())?;
        *session.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(UploadGuard { session, upload, number, latest })
    }

    /// Completes when another request claims the upload.
    pub async fn superseded(&mut self) {
        let number = self.number;
        // Fails only if the session was dropped; this guard holds it.
        let _ = self.latest.wait_for(|latest| *latest > number).await;
    }

    /// Takes the upload out; the caller puts it back, completes it or cancels it.
    pub fn take_out(&mut self) -> Result<Upload, ApiError> {
        let finished =
            || ApiError::not_found(ErrorCode::BlobUploadUnknown, "the upload is already completed or cancelled");
        self.upload.take().ok_or_else(finished)
    }

    pub fn put_back(&mut self, upload: Upload) {
        *self.upload = Some(upload);
        *self.session.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The number of received bytes.
    pub fn size(&self) -> u64 {
        self.upload.as_ref().map_or(0, Upload::size)
    }

    pub fn id(&self) -> String {
        self.upload.as_ref().map(|upload| upload.id().to_owned()).unwrap_or_default()
    }
}
