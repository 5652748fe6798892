//! The command line's own definition: the verbs, and the options every verb has. What verbs share is in
//! [`super::options`]; what only one has stands in that verb's file. Help, man pages and completions are made from it.

use super::verbs::{
    blob, cache, completions, copy, digest, inspect, list, load, login, logout, man, save, serve, tag, verify,
};
use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Shown below the help of every verb that takes a SRC or DST.
pub const PLACES: &str = "\
What SRC and DST may be:
  docker://[HOST[:PORT]/]REPO[:TAG|@DIGEST]
      a registry; a DST that ends in / is a prefix under which each image
      keeps its own path
  docker-archive:FILE[:REF]
      a docker-save tar; without REF, every image in it
  oci-archive:FILE[:REF], oci:DIR[:REF|:@DIGEST]
      an OCI layout, as tar or directory; without REF, every image in it
  containerd:REF, docker-daemon:REF
      this host's engines and containerd's directory
  ssh://[USER@]HOST[:PORT][/REF], [USER@]HOST:[REF]
      the engine of another host
  -
      an archive on standard input or output
  /path, ./path, ../path, ~/path, or what ends in .tar, .tar.gz, .tgz, .tar.zst
      as SRC, what it is is found by looking at it (archive or layout); as
      DST, an archive that loads everywhere, compressed as its ending says: only
      a plain .tar can be resumed, served, re-tagged and read in part
  anything else that is a reference
      a registry

What a word means never depends on what happens to lie on the disk. HOST: with
nothing behind the colon, or USER@HOST:…, is a host; NAME:TAG is a reference. A
bare name is a registry's: this host's engines are docker-daemon:app:2 and
containerd:app:2.";

const AFTER: &str = "\
Examples:
  imgmv copy alpine:3.20 ssh://root@node1
      registry to the engine on another host
  docker save app:2 | imgmv copy - node1.lan:
      a pipe to another host
  imgmv copy app.tar registry.lan:5000/team/app:2
      archive to a private registry, re-tagged
  imgmv save app:2 db:16 -o bundle.tar
      several images, shared layers once
  imgmv load -i bundle.tar
      into the engine of this host
  imgmv list oci:./mirror
  imgmv inspect app.tar
  imgmv verify bundle.tar

Exit status:
  0         done
  1         failed, none of the others
  2         usage
  3         image, tag, platform or file not found
  4         authentication or permission
  5         verification: a digest, size or format is wrong, or the input is
            hostile
  6         network or registry, after the retries
  7         the engine or host on the far side
  8         the destination cannot be written (full, read-only, locked)
  9         some of several images or destinations failed; each is named
  130, 143  interrupted; a rerun goes on

Every option has an environment twin: IMGMV_ and the option's name in capitals,
with _ for -. Each verb has its own help: imgmv copy --help.";

/// Move container images: from any source to any sink, through one engine.
#[derive(Debug, Parser)]
#[command(name = "imgmv", version, about, after_help = AFTER, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub talk: OutputOptions,
    #[command(subcommand)]
    pub verb: Verb,
}

/// How much is told, and in which form.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Say nothing but errors
    #[arg(short, long, global = true, env = "IMGMV_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Say more: decisions, requests that were repeated, what was there already
    #[arg(short, long, global = true, env = "IMGMV_VERBOSE", value_parser = FalseyValueParser::new())]
    pub verbose: bool,
    /// Write the answer to standard output as one JSON document with a "version"
    #[arg(long, global = true, env = "IMGMV_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
    /// How progress is shown on standard error
    #[arg(long, global = true, value_name = "HOW", default_value = "auto", env = "IMGMV_PROGRESS")]
    pub progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// Bars on a terminal, plain lines elsewhere
    Auto,
    /// Bars with total, rate and remaining time
    Bar,
    /// A line every few seconds
    Plain,
    /// One JSON object a line, for machines
    Json,
    /// Nothing
    None,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Copy(Box<copy::Copy>),
    Save(save::Save),
    Load(load::Load),
    Serve(serve::Serve),
    Tag(tag::Tag),
    List(list::List),
    Inspect(inspect::Inspect),
    Blob(blob::Blob),
    Digest(digest::Digest),
    Verify(verify::Verify),
    Cache(cache::Cache),
    Login(login::Login),
    Logout(logout::Logout),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, Command, CommandFactory};

    fn verbs() -> Vec<Command> {
        let mut root = Cli::command();
        root.build();
        root.get_subcommands().filter(|verb| verb.get_name() != "help").cloned().collect()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_has_its_environment_twin() {
        let options = |verb: &Command| verb.get_arguments().filter(|arg| arg.get_long().is_some()).cloned().collect();
        for (verb, option) in verbs().iter().flat_map(|verb| {
            let options: Vec<Arg> = options(verb);
            options.into_iter().map(|option| (verb.get_name().to_owned(), option))
        }) {
            let long = option.get_long().unwrap_or_default().to_owned();
            if long == "help" || long == "version" {
                continue;
            }
            let twin = format!("IMGMV_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(option.get_env().and_then(|name| name.to_str()), Some(&twin[..]), "imgmv {verb} --{long}");
            assert_eq!(option.is_hide_env_values_set(), long.ends_with("creds"), "imgmv {verb} --{long}");
        }
    }

    #[test]
    fn every_verb_teaches_by_example() {
        for verb in verbs().iter().filter(|verb| !verb.is_hide_set()) {
            let after = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.starts_with("Examples:\n  "), "{}", verb.get_name());
            assert!(after.contains(&format!("imgmv {}", verb.get_name())), "{}", verb.get_name());
            for line in after.lines().chain(PLACES.lines()).chain(AFTER.lines()) {
                assert!(line.chars().count() <= 80, "wider than a terminal: {line}");
            }
        }
    }
}
