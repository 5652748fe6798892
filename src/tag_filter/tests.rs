//! Properties of filters over any list of tags.

use super::selection::MAX_SELECTED_TAGS;
use super::version::Version;
use super::{TagFilter, TagPattern, VersionRange};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashSet};

fn select(filter: &TagFilter, tags: &[String]) -> Vec<String> {
    let mut selection = filter.start();
    tags.iter().for_each(|tag| selection.add(tag).unwrap());
    selection.finish().unwrap().into_iter().map(String::from).collect()
}

fn filter(latest: Option<usize>, steps: [bool; 4]) -> TagFilter {
    let [include, exclude, semver, prerelease] = steps;
    let pattern = |is_used: bool, text| is_used.then(|| TagPattern::regex(text).unwrap()).into_iter().collect();
    TagFilter {
        include: pattern(include, "1|a"),
        exclude: pattern(exclude, "slim"),
        semver: if semver { vec![VersionRange::parse(">=1.1 <3").unwrap()] } else { Vec::new() },
        prerelease,
        latest,
        with: Vec::new(),
    }
}

/// Tags of few versions and variants, so that many are the same version, and tags without a version.
fn tags() -> impl Strategy<Value = Vec<String>> {
    let version = "v?[0-3](\\.[0-3]){0,3}(-(rc[0-2]|alpine|slim|r[0-9]{1,2}|beta))?";
    let tag = prop_oneof![8 => version, 1 => "[a-z]{1,4}", 1 => "[0-9a-f]{7}"];
    proptest::collection::vec(tag, 0..60)
}

fn steps() -> impl Strategy<Value = TagFilter> {
    (proptest::option::of(0..8usize), any::<[bool; 4]>()).prop_map(|(latest, steps)| filter(latest, steps))
}

proptest! {
    #[test]
    fn the_order_of_adding_does_not_matter(tags in tags().prop_flat_map(|tags| (Just(tags.clone()), Just(tags).prop_shuffle())), filter in steps()) {
        prop_assert_eq!(select(&filter, &tags.0), select(&filter, &tags.1));
    }

    #[test]
    fn a_filter_without_steps_keeps_every_tag_once(tags in tags()) {
        let all: Vec<String> = tags.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        prop_assert_eq!(select(&TagFilter::default(), &tags), all);
    }

    #[test]
    fn each_step_only_removes(tags in tags(), steps in any::<[bool; 4]>(), latest in 0..8usize) {
        let mut before: HashSet<String> = tags.iter().cloned().collect();
        for used in 1..=3 {
            let steps = std::array::from_fn(|at| if at < 3 { at < used && steps[at] } else { steps[at] });
            let after: HashSet<String> = select(&filter(None, steps), &tags).into_iter().collect();
            prop_assert!(after.is_subset(&before));
            before = after;
        }
        let latest_tags = select(&filter(Some(latest), steps), &tags);
        prop_assert!(latest_tags.len() <= latest && latest_tags.iter().all(|tag| before.contains(tag)));
    }

    #[test]
    fn the_latest_are_the_end_of_the_sorted_list(tags in tags(), steps in any::<[bool; 4]>(), latest in 0..8usize) {
        let passing = select(&filter(None, steps), &tags);
        let is_kept = |tag: &&String| Version::of(tag).is_some_and(|version| steps[3] || version.prerelease.is_none());
        let mut sorted: Vec<&String> = passing.iter().filter(is_kept).collect();
        sorted.sort_by(|a, b| Version::of(b).unwrap().order(&Version::of(a).unwrap()).then_with(|| b.cmp(a)));
        sorted.truncate(latest);
        let found = select(&filter(Some(latest), steps), &tags);
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), sorted);
    }

    #[test]
    fn any_text_is_filtered_without_a_panic(text in "\\PC{0,40}", tag in "[0-9a-zA-Z_][0-9a-zA-Z._-]{0,40}") {
        for range in VersionRange::parse(&text).into_iter().chain(VersionRange::parse(&tag)) {
            let filter = TagFilter { semver: vec![range], latest: Some(2), ..TagFilter::default() };
            select(&filter, &[tag.clone(), text.clone()]);
        }
        for pattern in [TagPattern::regex(&text), TagPattern::anchored_regex(&text), TagPattern::glob(&text)] {
            let _ = pattern.map(|pattern| pattern.matches(&tag));
        }
    }

    #[test]
    fn a_glob_without_special_characters_matches_only_itself(tag in "[0-9a-z][0-9a-z._-]{0,9}", other in "[0-9a-z][0-9a-z._-]{0,9}") {
        let pattern = TagPattern::glob(&tag).unwrap();
        prop_assert!(pattern.matches(&tag));
        prop_assert_eq!(pattern.matches(&other), tag == other);
    }
}

#[test]
fn the_steps_follow_one_another() {
    let tags: Vec<String> =
        ["1.30.9", "1.31.0", "1.31.1", "1.31.2-alpine", "1.31.3-rc1", "1.31.2", "1.32.0", "latest", "sha-1"]
            .map(str::to_owned)
            .to_vec();
    let mut filter = TagFilter {
        exclude: vec![TagPattern::glob("*-alpine").unwrap()],
        semver: vec![VersionRange::parse(">=1.31 <1.32").unwrap()],
        latest: Some(2),
        with: vec!["edge".into(), "1.31.2".into()],
        ..TagFilter::default()
    };
    assert_eq!(select(&filter, &tags), ["1.31.2", "1.31.1", "edge"]);
    filter.prerelease = true;
    assert_eq!(select(&filter, &tags), ["1.31.3-rc1", "1.31.2", "edge"]);
    filter.semver.push(VersionRange::parse("1.32").unwrap());
    assert_eq!(select(&filter, &tags), ["1.32.0", "1.31.3-rc1", "edge", "1.31.2"]);
    filter.with = vec!["not a tag".into()];
    assert!(filter.start().finish().unwrap_err().to_string().contains("not a tag"));
}

#[test]
fn no_match_is_visible_to_the_caller() {
    let filter = TagFilter { include: vec![TagPattern::regex("^v9").unwrap()], ..TagFilter::default() };
    let mut selection = filter.start();
    selection.add("v1").unwrap();
    assert_eq!((selection.added(), selection.matched()), (1, 0));
    assert!(selection.finish().unwrap().is_empty());
}

#[test]
fn tags_that_belong_to_an_image_are_never_selected() {
    let hex = "a".repeat(64);
    let tags =
        [format!("sha256-{hex}"), format!("sha256-{hex}.sig"), format!("sha256-{hex}.att"), "sha256-short".to_owned()];
    let filter = TagFilter { include: vec![TagPattern::regex("^sha256-").unwrap()], ..TagFilter::default() };
    assert_eq!(select(&filter, &tags), ["sha256-short"]);
}

#[test]
fn more_than_200_000_kept_tags_are_an_error_and_the_latest_of_a_million_are_not() {
    let all = TagFilter::default();
    let mut selection = all.start();
    for at in 0..MAX_SELECTED_TAGS {
        selection.add(&format!("v{at}")).unwrap();
        selection.add("v0").unwrap();
    }
    assert!(selection.add("one-more").unwrap_err().to_string().contains("more than 200000 tags"));
    let latest = TagFilter { latest: Some(2), ..TagFilter::default() };
    let mut selection = latest.start();
    (0..1_000_000).for_each(|at| selection.add(&format!("1.{at}")).unwrap());
    assert_eq!(selection.finish().unwrap(), ["1.999999".into(), "1.999998".into()]);
}
