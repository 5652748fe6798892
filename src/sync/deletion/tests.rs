//! Properties of deletions over random repositories, sources and registries.

use super::carry_out::DeletionReport;
use super::repository::{DestinationTag, SparedReason};
use super::*;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Result};
use crate::image::{Digest, Name, digest_tags, referrers_tag};
use crate::source::TagListing;
use crate::transport::address::{Deleter, NameTargets, TagDeletion};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

const REPOSITORY: &str = "registry.lan/app";

fn name(tag: &str) -> Name {
    Name::new(format!("{REPOSITORY}:{tag}")).unwrap()
}

/// The digest of image `nth`.
fn image(nth: u8) -> Digest {
    Digest::of(&[nth])
}

fn listed(selected: usize) -> SourceTags {
    let repository = "quay.io/org/app".to_owned();
    SourceTags::Listed { repository, listed: selected.max(1), selected, listing: TagListing::default() }
}

/// A repository with names and manifests.
#[derive(Debug, Clone, Default)]
struct Registry {
    names: BTreeMap<Name, Digest>,
    manifests: BTreeSet<Digest>,
    /// Whether the manifest is removed with a tag, as some registries do.
    removes_manifests: bool,
    unsupported: bool,
    /// Another client moves the first name to the image before the request with this number.
    moves: Vec<(usize, Name, Digest)>,
    requests: usize,
}

impl Registry {
    fn tag(&mut self, tag: &str, digest: Digest) {
        self.names.insert(name(tag), digest);
        self.manifests.insert(digest);
    }

    fn listing(&self) -> Vec<DestinationTag> {
        let tag = |(name, digest): (&Name, &Digest)| DestinationTag { name: name.clone(), digest: Some(*digest) };
        self.names.iter().map(tag).collect()
    }

    fn plan(&self, scope: &Scope, limit: Option<DeletionLimit>) -> DeletionPlan {
        let plans = scope.repositories().map(|(repository, wanted)| {
            let mut exists = |digest: &Digest| Ok(self.manifests.contains(digest));
            RepositoryPlan::new(repository, wanted, self.listing(), &mut exists).unwrap()
        });
        DeletionPlan::new(scope, plans.collect(), limit)
    }
}

impl Deleter for Mutex<Registry> {
    fn visit_names(&self, visit: &mut dyn FnMut(Name) -> Result<()>) -> Result<()> {
        self.lock().unwrap().names.keys().cloned().try_for_each(visit)
    }

    fn targets(&self) -> Result<NameTargets> {
        unreachable!("a sync asks for the digests that it needs")
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<bool> {
        unreachable!("a sync deletes names only, not {digest}")
    }

    fn digest_of(&self, name: &Name) -> Result<Option<Digest>> {
        let mut registry = self.lock().unwrap();
        registry.requests += 1;
        let now = registry.requests;
        let due: Vec<_> = registry.moves.iter().filter(|(at, ..)| *at == now).cloned().collect();
        for (_, name, digest) in due {
            registry.manifests.insert(digest);
            registry.names.insert(name, digest);
        }
        Ok(registry.names.get(name).copied())
    }

    fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        Ok(self.lock().unwrap().manifests.contains(digest))
    }

    fn delete_name(&self, name: &Name) -> Result<TagDeletion> {
        let mut registry = self.lock().unwrap();
        if registry.unsupported {
            return Ok(TagDeletion::Unsupported("status 405".to_owned()));
        }
        if let Some(digest) = registry.names.remove(name)
            && registry.removes_manifests
        {
            registry.manifests.remove(&digest);
            registry.names.retain(|_, other| *other != digest);
        }
        Ok(TagDeletion::Deleted)
    }
}

fn carry_out(plan: DeletionPlan, registry: Registry) -> (Registry, DeletionReport) {
    let place = Mutex::new(registry);
    let approved = plan.approve().unwrap();
    let report = approved.repositories()[0].carry_out(&place, &Cancel::default());
    (place.into_inner().unwrap(), report)
}

fn tags_of(names: impl IntoIterator<Item = Name>) -> Vec<String> {
    names.into_iter().filter_map(|name| name.tag()).collect()
}

prop_compose! {
    /// Images `t0` to `t11` with few digests, and tags of signatures.
    fn registries()(
        tags in proptest::collection::btree_map(0..12u8, 0..6u8, 0..12),
        signatures in proptest::collection::vec((0..9u8, 0..4usize), 0..6),
        untagged in proptest::collection::vec(0..9u8, 0..3),
        removes_manifests: bool,
        unsupported in proptest::bool::weighted(0.1),
        moves in proptest::collection::vec((1..12usize, 0..12u8, 0..6u8), 0..3),
    ) -> Registry {
        let mut registry = Registry { removes_manifests, unsupported, ..Registry::default() };
        tags.iter().for_each(|(tag, digest)| registry.tag(&format!("t{tag}"), image(*digest)));
        for (at, (subject, form)) in signatures.into_iter().enumerate() {
            let subject = image(subject);
            let tag = digest_tags(&subject).get(form).cloned().unwrap_or_else(|| referrers_tag(&subject));
            registry.tag(&tag, image(100 + at as u8));
        }
        registry.manifests.extend(untagged.into_iter().map(image));
        registry.moves = moves.into_iter().map(|(at, tag, to)| (at, name(&format!("t{tag}")), image(50 + to))).collect();
        registry
    }
}

fn sources() -> impl Strategy<Value = Vec<SourceTags>> {
    let failed = || SourceTags::Failed { repository: "quay.io/org/app".to_owned(), error: Error::network("timeout") };
    let cut = || SourceTags::Listed {
        repository: "quay.io/org/app".to_owned(),
        listed: 1000,
        selected: 5,
        listing: TagListing { skipped: 0, may_be_cut: true },
    };
    let source = prop_oneof![
        6 => (1..5usize).prop_map(listed),
        3 => (1..5usize).prop_map(SourceTags::Literal),
        1 => Just(listed(0)),
        1 => Just(SourceTags::Literal(0)),
        1 => Just(failed()),
        1 => Just(cut()),
    ];
    proptest::collection::vec(source, 1..4)
}

fn limits() -> impl Strategy<Value = Option<DeletionLimit>> {
    let percent = (1..=100u8).prop_map(DeletionLimit::Percent);
    proptest::option::of(prop_oneof![percent, (1..6usize).prop_map(DeletionLimit::Count)])
}

proptest! {
    #[test]
    fn a_deletion_takes_only_names_that_no_entry_wants(
        registry in registries(), sources in sources(), wanted in proptest::collection::btree_set(0..12u8, 0..12), limit in limits()
    ) {
        let mut scope = Scope::default();
        let wanted: BTreeSet<Name> = wanted.iter().map(|tag| name(&format!("t{tag}"))).collect();
        let is_known = sources.iter().all(|source| source.problem().is_none()) && !wanted.is_empty();
        // Each entry wants every second name, so that only all together have the right ones.
        for (at, source) in sources.iter().enumerate() {
            let own = wanted.iter().enumerate().filter(|(nth, _)| sources.len() == 1 || nth % sources.len() == at);
            scope.add(REPOSITORY, own.map(|(_, name)| name.clone()), source.clone());
        }
        let plan = registry.plan(&scope, limit);
        let deletions = plan.repositories()[0].deletions.clone();
        prop_assert!(deletions.iter().all(|deletion| !wanted.contains(&deletion.name)));
        for deletion in &deletions {
            if let Some(subject) = subject_of(&deletion.name) {
                prop_assert!(!registry.manifests.contains(&subject), "the subject of {} exists", deletion.name);
            }
        }
        let before = registry.clone();
        match plan.approve() {
            Err(error) => {
                prop_assert_eq!(error.kind(), Kind::Failed);
                prop_assert!(!deletions.is_empty());
            }
            Ok(approved) => {
                prop_assert!(deletions.is_empty() || is_known);
                if let Some(limit) = limit {
                    prop_assert!(deletions.len() <= limit.allowed(before.names.len()));
                }
                let place = Mutex::new(registry);
                let report = approved.repositories()[0].carry_out(&place, &Cancel::default());
                prop_assert_eq!(report.deleted.len() + report.spared.len(), deletions.len());
                let after = place.into_inner().unwrap();
                let deleted: BTreeSet<&Name> = report.deleted.iter().map(|deletion| &deletion.name).collect();
                if !before.removes_manifests {
                    prop_assert!(before.manifests.is_subset(&after.manifests));
                    prop_assert!(report.error.is_none() || before.unsupported);
                    prop_assert!(before.names.keys().all(|name| deleted.contains(name) || after.names.contains_key(name)));
                }
                // A registry that removes manifests does so at most once to a name that stays, and the report says so.
                let staying = |name: &&Name| deletions.iter().all(|deletion| deletion.name != **name);
                let lost: BTreeSet<Digest> = before.names.keys().filter(staying).filter(|name| !after.names.contains_key(name)).map(|name| before.names[name]).collect();
                prop_assert!(lost.len() <= 1 && (lost.is_empty() || report.error.is_some()), "{:?}", lost);
                for deletion in &report.deleted {
                    prop_assert_eq!(Some(&deletion.digest), before.names.get(&deletion.name));
                }
                prop_assert!(!after.unsupported || report.deleted.is_empty());
            }
        }
    }
}

fn subject_of(name: &Name) -> Option<Digest> {
    match owner::of(&name.tag()?) {
        owner::Owner::Manifest(subject) => Some(subject),
        _ => None,
    }
}

#[test]
fn entries_that_write_into_one_repository_are_united() {
    let mut registry = Registry::default();
    ["1", "2", "3"].iter().zip(0..).for_each(|(tag, nth)| registry.tag(tag, image(nth)));
    let mut scope = Scope::default();
    scope.add(REPOSITORY, [name("1")], listed(1));
    scope.add(REPOSITORY, [name("2")], SourceTags::Literal(1));
    let (after, report) = carry_out(registry.plan(&scope, None), registry);
    assert_eq!(tags_of(report.deleted.into_iter().map(|deletion| deletion.name)), ["3"]);
    assert_eq!(tags_of(after.names.into_keys()), ["1", "2"]);
}

#[test]
fn one_broken_source_deletes_nothing_in_the_whole_run() {
    let mut registry = Registry::default();
    registry.tag("old", image(1));
    let failed = |error| SourceTags::Failed { repository: "quay.io/org/b".to_owned(), error };
    let cut = |skipped, may_be_cut| SourceTags::Listed {
        repository: "quay.io/org/b".to_owned(),
        listed: 1000,
        selected: 10,
        listing: TagListing { skipped, may_be_cut },
    };
    let empty = SourceTags::Listed {
        repository: "quay.io/org/b".to_owned(),
        listed: 0,
        selected: 0,
        listing: TagListing::default(),
    };
    for (source, why) in [
        (failed(Error::network("timeout")), "was not listed: timeout"),
        (failed(Error::not_found("status 404")), "status 404"),
        (failed(Error::denied("status 401")), "status 401"),
        (failed(Error::invalid("half a list")), "half a list"),
        (empty, "has no tags"),
        (listed(0), "no tag of quay.io/org/app passes the filter"),
        (cut(1, false), "may not be complete"),
        (cut(0, true), "may not be complete"),
        (SourceTags::Literal(0), "names no tag"),
    ] {
        let mut scope = Scope::default();
        scope.add(REPOSITORY, [name("new")], listed(1));
        scope.add("registry.lan/other", [Name::new("registry.lan/other:1").unwrap()], source);
        let error = registry.plan(&scope, None).approve().unwrap_err();
        assert!(error.to_string().contains("nothing was deleted") && error.to_string().contains(why), "{error}");
    }
    let mut scope = Scope::default();
    scope.add(REPOSITORY, [], listed(1));
    assert!(registry.plan(&scope, None).approve().unwrap_err().to_string().contains("no tag is wanted"));
}

#[test]
fn the_maximum_counts_for_each_repository_before_the_first_deletion() {
    let mut registry = Registry::default();
    (0..20).for_each(|nth| registry.tag(&format!("t{nth}"), image(nth)));
    let mut scope = Scope::default();
    scope.add(REPOSITORY, (2..20).map(|nth| name(&format!("t{nth}"))), listed(18));
    assert!(registry.plan(&scope, Some(DeletionLimit::Percent(10))).approve().is_ok());
    let error = registry.plan(&scope, Some(DeletionLimit::Percent(9))).approve().unwrap_err().to_string();
    assert!(error.contains("registry.lan/app: 2 of 20 tags would be deleted; --delete-max 9% allows 1"), "{error}");
    // Signatures do not raise the number of images that may be deleted.
    (0..20).for_each(|nth| digest_tags(&image(nth)).iter().for_each(|tag| registry.tag(tag, image(99))));
    let error = registry.plan(&scope, Some(DeletionLimit::Percent(9))).approve().unwrap_err().to_string();
    assert!(error.contains("2 of 20 tags"), "{error}");
    let mut other = Scope::default();
    other.add(REPOSITORY, (1..20).map(|nth| name(&format!("t{nth}"))), listed(19));
    assert!(registry.plan(&other, Some(DeletionLimit::Percent(1))).approve().is_ok());
}

#[test]
fn signatures_go_only_when_their_subject_is_gone() {
    let (present, gone) = (image(1), image(2));
    let mut registry = Registry::default();
    registry.tag("1", image(0));
    registry.manifests.insert(present);
    for tag in [referrers_tag(&present), referrers_tag(&gone)]
        .into_iter()
        .chain(digest_tags(&present))
        .chain(digest_tags(&gone))
    {
        registry.tag(&tag, image(9));
    }
    registry.tag("sha256-short.sig", image(9));
    let mut scope = Scope::default();
    scope.add(REPOSITORY, [name("1")], listed(1));
    let plan = registry.plan(&scope, None);
    let deleted = tags_of(plan.repositories()[0].deletions.iter().map(|deletion| deletion.name.clone()));
    assert!(deleted.len() == 4 && deleted.iter().all(|tag| tag.contains(&gone.hex())), "{deleted:?}");
    // The destination could not be asked.
    let (_, wanted) = scope.repositories().next().unwrap();
    let mut fails = |_: &Digest| Err(Error::failed("status 500"));
    let plan = RepositoryPlan::new(REPOSITORY, wanted, registry.listing(), &mut fails).unwrap();
    assert!(plan.deletions.is_empty() && plan.spared.len() == 9);
    let mut stops = |_: &Digest| Err(Error::interrupted());
    assert!(RepositoryPlan::new(REPOSITORY, wanted, registry.listing(), &mut stops).is_err());
}

#[test]
fn a_tag_that_moved_or_went_during_the_run_is_spared() {
    let mut registry = Registry::default();
    ["1", "2", "3", "4"].iter().zip(0..).for_each(|(tag, nth)| registry.tag(tag, image(nth)));
    let mut scope = Scope::default();
    scope.add(REPOSITORY, [name("1")], listed(1));
    let plan = registry.plan(&scope, None);
    registry.moves.push((1, name("2"), image(8)));
    registry.names.remove(&name("3"));
    let (after, report) = carry_out(plan, registry);
    let reasons: Vec<_> = report.spared.into_iter().map(|spared| spared.reason).collect();
    assert_eq!(reasons, [SparedReason::Moved, SparedReason::Gone]);
    assert_eq!(tags_of(after.names.into_keys()), ["1", "2"]);
}

#[test]
fn a_registry_that_removes_manifests_with_tags_keeps_those_of_other_tags() {
    let mut registry = Registry { removes_manifests: true, ..Registry::default() };
    registry.tag("keep", image(1));
    registry.tag("same", image(1));
    registry.tag("other", image(2));
    let mut scope = Scope::default();
    scope.add(REPOSITORY, [name("keep")], listed(1));
    let (after, report) = carry_out(registry.plan(&scope, None), registry.clone());
    assert_eq!(tags_of(after.names.into_keys()), ["keep", "same"]);
    assert_eq!(report.spared[0].reason, SparedReason::SharedManifest);
    // Without another deletion before, only the loss itself shows how the registry deletes.
    registry.names.remove(&name("other"));
    registry.tag("same2", image(1));
    let (_, report) = carry_out(registry.plan(&scope, None), registry);
    assert_eq!((report.deleted.len(), report.spared.len()), (1, 1));
    assert!(report.error.unwrap().to_string().contains("run the sync again to restore it"));
}

#[test]
fn a_name_of_a_layout_that_is_only_a_tag_stands_for_every_name_with_it() {
    let mut scope = Scope::default();
    scope.add("oci:mirror", [Name::new("app:1").unwrap(), Name::new("2").unwrap()], SourceTags::Literal(2));
    let (_, wanted) = scope.repositories().next().unwrap();
    for (name, is_wanted) in [("app:1", true), ("1", true), ("2", true), ("db:2", true), ("db:1", false), ("3", false)]
    {
        assert_eq!(wanted.contains(&Name::new(name).unwrap()), is_wanted, "{name}");
    }
}

#[test]
fn a_destination_is_asked_only_for_digests_that_are_not_known() {
    let mut registry = Registry::default();
    ["1", "2", "3"].iter().zip(0..).for_each(|(tag, nth)| registry.tag(tag, image(nth)));
    let place = Mutex::new(registry);
    let known = HashMap::from([(name("1"), image(0)), (name("other"), image(9))]);
    let listed = list(REPOSITORY, &place, &known, 1, &Cancel::default()).unwrap();
    let found: Vec<_> = listed.iter().map(|tag| (tag.name.clone(), tag.digest)).collect();
    assert_eq!(found, [(name("1"), Some(image(0))), (name("2"), Some(image(1))), (name("3"), Some(image(2)))]);
    assert_eq!(place.lock().unwrap().requests, 2);
    let stopped = Cancel::default();
    stopped.raise();
    assert_eq!(list(REPOSITORY, &place, &known, 1, &stopped).unwrap_err().kind(), Kind::Interrupted);
}
