//! Uploads under way, between their requests. Whoever comes for an upload while a request is still on it ends that
//! request: its client has lost the connection and does not know yet what arrived.

use crate::image::Algorithm;
use crate::serve::backend::writable::Target;
use crate::serve::http::errors::{Code, Refusal};
use crate::serve::http::reply::blocking;
use crate::transport::layout::{PushedLayout, Upload};
use hyper::StatusCode;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::timeout;

/// Uploads that are kept open; the others are taken up again from the disk.
const OPEN: usize = 256;
/// For the request before to let go: it writes down at most a buffer.
const LETTING_GO: Duration = Duration::from_secs(30);

/// All uploads of a server.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

struct Session {
    repository: String,
    upload: Arc<tokio::sync::Mutex<Option<Upload>>>,
    /// Goes up with every request that comes for it.
    turn: watch::Sender<u64>,
    touched: Mutex<Instant>,
}

/// The right to go on with one upload, until another request wants it.
pub struct UploadGuard {
    session: Arc<Session>,
    guard: OwnedMutexGuard<Option<Upload>>,
    mine: u64,
    turn: watch::Receiver<u64>,
}

impl Sessions {
    /// A new upload in `layout`, which is that of `repository`.
    pub async fn begin(
        &self,
        repository: &str,
        layout: PushedLayout,
        algorithm: Algorithm,
    ) -> Result<UploadGuard, Refusal> {
        let upload = blocking(move || layout.start_upload(algorithm)).await??;
        let id = upload.id().to_owned();
        let session = self.keep(id, repository, upload);
        UploadGuard::take(session).await
    }

    /// The upload `id` of `repository`, also one from before this process began.
    pub async fn resume(&self, repository: &str, id: &str, target: &Arc<Target>) -> Result<UploadGuard, Refusal> {
        let unknown = || Refusal::not_found(Code::BlobUploadUnknown, "there is no such upload, or it is over");
        let known = self.all().get(id).cloned();
        let session = match known {
            Some(session) => session,
            None => {
                let (target, name, wanted) = (target.clone(), repository.to_owned(), id.to_owned());
                let found = blocking(move || match target.layout(&name)? {
                    Some(layout) => layout.resume_upload(&wanted),
                    None => Ok(None),
                });
                let upload = found.await??;
                match upload {
                    Some(upload) => self.keep(id.to_owned(), repository, upload),
                    // Another request may have taken it up just now.
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

    /// Forgets `turn`'s upload, which is over.
    pub fn end(&self, id: &str) {
        self.all().remove(id);
    }

    /// Lets go of those that nobody has come for in `life`, so that they can be removed.
    pub fn let_go(&self, life: Duration) {
        self.all().retain(|_, session| {
            session.touched.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < life
                || Arc::strong_count(session) > 1
        });
    }

    fn keep(&self, id: String, repository: &str, upload: Upload) -> Arc<Session> {
        let session = Arc::new(Session {
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

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UploadGuard {
    async fn take(session: Arc<Session>) -> Result<UploadGuard, Refusal> {
        let busy = || Refusal::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, "another request is on this upload");
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

    /// Ends when another request has come for the upload.
    pub async fn superseded(&mut self) {
        let mine = self.mine;
        // Fails only when the session is gone, which this holds.
        let _ = self.turn.wait_for(|turn| *turn > mine).await;
    }

    /// Takes the upload out, to be put back or ended.
    pub fn take_out(&mut self) -> Result<Upload, Refusal> {
        let over = || Refusal::not_found(Code::BlobUploadUnknown, "the upload is over");
        self.guard.take().ok_or_else(over)
    }

    pub fn put_back(&mut self, upload: Upload) {
        *self.guard = Some(upload);
        *self.session.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Bytes that are kept.
    pub fn size(&self) -> u64 {
        self.guard.as_ref().map_or(0, Upload::size)
    }

    pub fn id(&self) -> String {
        self.guard.as_ref().map(|upload| upload.id().to_owned()).unwrap_or_default()
    }
}
