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
const MAX_OPEN_UPLOADS: usize = 256;
/// The time for the previous request to release an upload; it writes at most one buffer.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(30);

/// All open uploads of a server.
#[derive(Default)]
pub struct OpenUploads(Mutex<HashMap<String, Arc<OpenUpload>>>);

struct OpenUpload {
    repository: String,
    upload: Arc<tokio::sync::Mutex<Option<Upload>>>,
    /// The number of the latest request for this upload.
    latest: watch::Sender<u64>,
    touched: Mutex<Instant>,
}

/// Exclusive access to one upload, until another request takes it over.
pub struct UploadGuard {
    open_upload: Arc<OpenUpload>,
    upload: OwnedMutexGuard<Option<Upload>>,
    number: u64,
    latest: watch::Receiver<u64>,
}

impl OpenUploads {
    /// Starts an upload in `layout`, the layout of `repository`.
    pub async fn start(
        &self,
        repository: &str,
        layout: PushedLayout,
        algorithm: Algorithm,
    ) -> Result<UploadGuard, ApiError> {
        let upload = blocking(move || layout.start_upload(algorithm)).await??;
        let id = upload.id().to_owned();
        let open_upload = self.insert(id, repository, upload);
        UploadGuard::take_over(open_upload).await
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
        let known = self.uploads().get(id).cloned();
        let open_upload = match known {
            Some(open_upload) => open_upload,
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
                    None => self.uploads().get(id).cloned().ok_or_else(unknown)?,
                }
            }
        };
        if open_upload.repository != repository {
            return Err(unknown());
        }
        let guard = UploadGuard::take_over(open_upload).await?;
        match guard.upload.is_some() {
            true => Ok(guard),
            false => Err(unknown()),
        }
    }

    /// Removes a completed or cancelled upload.
    pub fn remove(&self, id: &str) {
        self.uploads().remove(id);
    }

    /// Closes uploads without a request in `lifetime`, so that their files can be removed.
    pub fn close_idle(&self, lifetime: Duration) {
        self.uploads().retain(|_, open_upload| {
            open_upload.touched.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < lifetime
                || Arc::strong_count(open_upload) > 1
        });
    }

    fn insert(&self, id: String, repository: &str, upload: Upload) -> Arc<OpenUpload> {
        let open_upload = Arc::new(OpenUpload {
            repository: repository.to_owned(),
            upload: Arc::new(tokio::sync::Mutex::new(Some(upload))),
            latest: watch::Sender::new(0),
            touched: Mutex::new(Instant::now()),
        });
        let mut uploads = self.uploads();
        if uploads.len() >= MAX_OPEN_UPLOADS {
            let idle = uploads.iter().filter(|(_, open_upload)| Arc::strong_count(open_upload) == 1);
            let oldest =
                idle.min_by_key(|(_, open_upload)| *open_upload.touched.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(id) = oldest.map(|(id, _)| id.clone()) {
                uploads.remove(&id);
            }
        }
        uploads.insert(id, open_upload.clone());
        open_upload
    }

    fn uploads(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<OpenUpload>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UploadGuard {
    async fn take_over(open_upload: Arc<OpenUpload>) -> Result<UploadGuard, ApiError> {
        let busy = || {
            ApiError::new(
                StatusCode::CONFLICT,
                ErrorCode::BlobUploadInvalid,
                "another request still writes to this upload; retry later",
            )
        };
        let mut number = 0;
        open_upload.latest.send_modify(|latest| {
            *latest += 1;
            number = *latest;
        });
        let latest = open_upload.latest.subscribe();
        let upload = timeout(RELEASE_TIMEOUT, open_upload.upload.clone().lock_owned()).await.map_err(|_| busy())?;
        *open_upload.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(UploadGuard { open_upload, upload, number, latest })
    }

    /// Completes when another request takes over the upload.
    pub async fn superseded(&mut self) {
        let number = self.number;
        // Fails only if the open upload was dropped; this guard holds it.
        let _ = self.latest.wait_for(|latest| *latest > number).await;
    }

    /// Takes the upload out; the caller puts it back, completes it or cancels it.
    pub fn take_out(&mut self) -> Result<Upload, ApiError> {
        let gone = || ApiError::not_found(ErrorCode::BlobUploadUnknown, "the upload is already completed or cancelled");
        self.upload.take().ok_or_else(gone)
    }

    pub fn put_back(&mut self, upload: Upload) {
        *self.upload = Some(upload);
        *self.open_upload.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The number of received bytes.
    pub fn size(&self) -> u64 {
        self.upload.as_ref().map_or(0, Upload::size)
    }

    pub fn id(&self) -> String {
        self.upload.as_ref().map(|upload| upload.id().to_owned()).unwrap_or_default()
    }
}
