//! A set as lines of text, to compare with: `PLACE: FROM [TAGS] > TO [PLATFORMS] [REFERRERS]`.

use imgmv::internals::sets::{Entry, ImageSet, ReadOptions, Tags, read};
use imgmv::{Error, Result};

/// Reads a document without templates.
pub fn plain(text: &str) -> Result<ImageSet> {
    read(text.as_bytes(), &no_templates())
}

pub fn no_templates() -> ReadOptions<'static> {
    ReadOptions {
        allow_templates: false,
        allow_empty: false,
        env: &|_| panic!("no variable may be read"),
        file: &|_| Err(Error::failed("no file may be read")),
    }
}

pub fn lines(set: &ImageSet) -> Vec<String> {
    let mut lines = vec![set.format.to_string()];
    lines.extend(set.entries.iter().map(line));
    lines.extend(set.hosts.iter().map(|host| {
        let path = if host.path.is_empty() { String::new() } else { format!("/{}", host.path) };
        let login = host.login.as_ref().map_or(String::new(), |login| format!(" as {}", login.user));
        let insecure = if host.insecure { " insecure" } else { "" };
        format!("host {}{path}{login}{insecure}", host.host)
    }));
    lines.extend(set.not_honoured.iter().map(|key| format!("not honoured: {key}")));
    lines
}

fn line(entry: &Entry) -> String {
    let mut line = format!("{}: {}", entry.place, entry.from);
    match &entry.tags {
        Tags::Named => {}
        Tags::Listed(tags) => {
            let tag = |tag: &imgmv::internals::sets::ListedTag| match &tag.to {
                Some(to) => format!("{}={to}", tag.from),
                None => tag.from.to_string(),
            };
            line += &format!(" [{}]", tags.iter().map(tag).collect::<Vec<_>>().join(" "));
        }
        Tags::Filtered(filter) => {
            let mut steps: Vec<String> = filter.include.iter().map(|pattern| format!("/{pattern}/")).collect();
            steps.extend(filter.exclude.iter().map(|pattern| format!("!/{pattern}/")));
            steps.extend(filter.semver.iter().map(|range| format!("({range})")));
            steps.extend(filter.prerelease.then(|| "prerelease".to_owned()));
            steps.extend(filter.latest.map(|latest| format!("latest {latest}")));
            steps.extend(filter.with.iter().map(|tag| format!("+{tag}")));
            line += &format!(" {{{}}}", steps.join(" "));
        }
    }
    if !entry.to.is_empty() {
        line += &format!(" > {}", entry.to.join(" "));
    }
    entry.platforms.iter().for_each(|platform| line += &format!(" {platform}"));
    match entry.referrers {
        Some(true) => line + " referrers",
        Some(false) => line + " no-referrers",
        None => line,
    }
}
