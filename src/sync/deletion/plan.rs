//! The checks of the whole run, before the first deletion.

use super::limit::DeletionLimit;
use super::owner::{self, Owner};
use super::repository::{PlannedDeletion, RepositoryPlan};
use super::scope::Scope;
use crate::error::{Error, Kind, Result};
use crate::message::counted;

/// The maximum number of reasons in one message.
const MAX_NAMED_PROBLEMS: usize = 8;

/// The deletions of a run, before the checks.
#[derive(Debug)]
pub struct DeletionPlan {
    repositories: Vec<RepositoryPlan>,
    problems: Vec<String>,
    limit: Option<DeletionLimit>,
}

impl DeletionPlan {
    /// A plan of `repositories`, those of `scope`. Without a `limit` every tag may be deleted.
    pub fn new(scope: &Scope, repositories: Vec<RepositoryPlan>, limit: Option<DeletionLimit>) -> DeletionPlan {
        DeletionPlan { repositories, problems: scope.problems(), limit }
    }

    /// The plan of each repository. A dry run also needs the checks of [`DeletionPlan::approve`].
    pub fn repositories(&self) -> &[RepositoryPlan] {
        &self.repositories
    }

    /// Checks the plan of the whole run.
    ///
    /// # Errors
    /// `Failed`: a source was not listed to the end or has no tags, an image was not copied, or a repository would lose more tags than the limit
    /// allows. Nothing may be deleted then.
    pub fn approve(self) -> Result<ApprovedPlan> {
        if self.repositories.iter().all(|repository| repository.deletions.is_empty()) {
            return Ok(ApprovedPlan::of(self.repositories));
        }
        if !self.problems.is_empty() {
            return Err(Error::several(
                Kind::Failed,
                "--delete: nothing was deleted, since a source was not read completely; run the sync again",
                &some_of(self.problems),
            ));
        }
        let above: Vec<String> =
            self.repositories.iter().filter_map(|repository| self.above_limit(repository)).collect();
        match above.is_empty() {
            true => Ok(ApprovedPlan::of(self.repositories)),
            false => Err(Error::several(
                Kind::Failed,
                "--delete: nothing was deleted, since a repository would lose too many tags; check the list with --dry-run, \
                 then raise --delete-max",
                &some_of(above),
            )),
        }
    }

    /// The line for a repository that would lose more tags than the limit allows: of all its tags, or of its images.
    fn above_limit(&self, plan: &RepositoryPlan) -> Option<String> {
        let limit = self.limit?;
        let is_image =
            |deletion: &&PlannedDeletion| deletion.name.tag().is_some_and(|tag| owner::of(&tag) == Owner::None);
        let images = plan.deletions.iter().filter(is_image).count();
        let all = (plan.deletions.len(), plan.images + plan.owned);
        let (deleted, of) =
            [all, (images, plan.images)].into_iter().find(|(deleted, of)| *deleted > limit.allowed(*of))?;
        let (tags, allowed) = (counted(of, "tag"), limit.allowed(of));
        Some(format!(
            "{}: {deleted} of {tags} would be deleted; --delete-max {limit} allows {allowed}",
            plan.repository
        ))
    }
}

/// The first of `problems`, and the number of the others.
fn some_of(mut problems: Vec<String>) -> Vec<String> {
    let more = problems.len().saturating_sub(MAX_NAMED_PROBLEMS);
    if more > 0 {
        problems.truncate(MAX_NAMED_PROBLEMS);
        problems.push(format!("and {more} more"));
    }
    problems
}

/// Deletions that may be carried out.
#[derive(Debug)]
pub struct ApprovedPlan(Vec<ApprovedRepository>);

/// The deletions in one repository, as a part of a run whose checks passed.
#[derive(Debug)]
pub struct ApprovedRepository(RepositoryPlan);

impl ApprovedPlan {
    fn of(repositories: Vec<RepositoryPlan>) -> ApprovedPlan {
        ApprovedPlan(repositories.into_iter().map(ApprovedRepository).collect())
    }

    /// The repositories, in the order of the plan.
    pub fn repositories(&self) -> &[ApprovedRepository] {
        &self.0
    }
}

impl ApprovedRepository {
    /// The names that are deleted and spared.
    pub fn plan(&self) -> &RepositoryPlan {
        &self.0
    }
}
