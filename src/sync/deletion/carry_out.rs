//! The deletions themselves, one name after the other.

use super::plan::ApprovedRepository;
use super::repository::{PlannedDeletion, SparedReason, SparedTag};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::transport::address::{Deleter, TagDeletion};

/// The deletions in one repository or layout.
#[derive(Debug, Default)]
pub struct DeletionReport {
    pub deleted: Vec<PlannedDeletion>,
    /// The names that were planned and not deleted.
    pub spared: Vec<SparedTag>,
    /// The first error.
    pub error: Option<Error>,
}

impl ApprovedRepository {
    /// Deletes the names of the plan. Each is read again just before, and spared if it moved. After an error the report
    /// has it, and the names that were deleted before.
    ///
    /// A registry that removes a manifest with its tag must not do so to a manifest of a name that stays. Names of such
    /// manifests are last, and are spared if an earlier deletion removed a manifest.
    pub fn carry_out(&self, place: &dyn Deleter, cancel: &Cancel) -> DeletionReport {
        let mut report = DeletionReport::default();
        let mut planned = self.plan().deletions.iter().peekable();
        while let Some(deletion) = planned.next() {
            match cancel.check().and_then(|()| delete(deletion, place)) {
                Ok(Step::Deleted) => {
                    report.deleted.push(deletion.clone());
                    let is_next_shared = planned.peek().is_some_and(|next| next.kept.is_some());
                    if is_next_shared && deletion.kept.is_none() && removes_manifests(deletion, place) {
                        report.spare(planned.by_ref(), &SparedReason::SharedManifest);
                    }
                }
                Ok(Step::DeletedAsLast(error)) => {
                    report.deleted.push(deletion.clone());
                    report.spare(planned.by_ref(), &SparedReason::SharedManifest);
                    report.error = Some(error);
                }
                Ok(Step::Spared(reason)) => {
                    report.spare([deletion], &reason);
                    if let SparedReason::Unsupported(answer) = &reason {
                        report.error = Some(Error::failed(format!(
                            "{}: the registry cannot delete tags ({answer}); nothing was deleted there",
                            self.plan().repository
                        )));
                        // Every other tag gets the same answer.
                        report.spare(planned.by_ref(), &reason);
                    }
                }
                Err(error) => {
                    let reason = SparedReason::Failed(error.to_string());
                    report.spare([deletion], &reason);
                    if matches!(error.kind(), Kind::Interrupted | Kind::Denied | Kind::Network) {
                        report.spare(planned.by_ref(), &reason);
                    }
                    report.error.get_or_insert(error);
                }
            }
        }
        report
    }
}

impl DeletionReport {
    fn spare<'p>(&mut self, planned: impl IntoIterator<Item = &'p PlannedDeletion>, reason: &SparedReason) {
        let spared = |deletion: &PlannedDeletion| SparedTag { name: deletion.name.clone(), reason: reason.clone() };
        self.spared.extend(planned.into_iter().map(spared));
    }
}

/// The end of the deletion of one name.
enum Step {
    Deleted,
    /// The name was deleted, and no other name of a shared manifest may be.
    DeletedAsLast(Error),
    Spared(SparedReason),
}

fn delete(deletion: &PlannedDeletion, place: &dyn Deleter) -> Result<Step> {
    let PlannedDeletion { name, digest, kept } = deletion;
    match place.digest_of(name)? {
        None => return Ok(Step::Spared(SparedReason::Gone)),
        Some(present) if present != *digest => return Ok(Step::Spared(SparedReason::Moved)),
        Some(_) => {}
    }
    if let TagDeletion::Unsupported(answer) = place.delete_name(name)? {
        return Ok(Step::Spared(SparedReason::Unsupported(answer)));
    }
    let Some(kept) = kept else { return Ok(Step::Deleted) };
    match place.digest_of(kept) {
        Ok(Some(_)) => Ok(Step::Deleted),
        Ok(None) => Ok(Step::DeletedAsLast(Error::failed(format!(
            "{kept}: the registry deleted its manifest together with the tag {name}, so no other tag was deleted; run the \
             sync again to restore it"
        )))),
        Err(error) => Ok(Step::DeletedAsLast(error)),
    }
}

/// Whether the place removed the manifest with its last name; an error counts as that.
fn removes_manifests(deletion: &PlannedDeletion, place: &dyn Deleter) -> bool {
    !place.has_manifest(&deletion.digest).unwrap_or(false)
}
