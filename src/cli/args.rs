//! The definition of the command line: the verbs and the global options. Help, man pages and completions are generated
//! from it. Options of several verbs are in [`super::options`], options of one verb are in its file.

use super::context::CliRun;
use super::output::options::OutputOptions;
use super::verbs::{
    blob, cache, completions, copy, delete, diff, digest, inspect, list, load, login, logout, man, save, serve, sync,
    tag, verify,
};
use crate::Result;
use clap::{CommandFactory, Parser, Subcommand};

const AFTER_HELP: &str = "\
Examples:
  imgmv copy alpine:3.20 ssh://root@node1
      from a registry to the engine on another host
  docker save app:2 | imgmv copy - node1.lan:
      from a pipe to another host
  imgmv copy app.tar registry.lan:5000/team/app:2
      from an archive to a private registry, with another tag
  imgmv save app:2 db:16 -o bundle.tar
      several images; layers that they share are stored once
  imgmv load -i bundle.tar
      into the engine on this host
  imgmv sync images.txt registry.lan:5000/
      many images, from a list or the file of another tool
  imgmv list oci:./mirror
  imgmv inspect app.tar
  imgmv verify bundle.tar

Exit status:
  0         success
  1         other error
  2         usage error
  3         image, tag, platform or file not found
  4         authentication failed or permission denied
  5         verification failed: a digest, size or format is wrong, or the input
            is hostile
  6         network or registry error, after all retries
  7         error of an engine or a remote host
  8         the destination is not writable (full, read-only, locked)
  9         some of several images or destinations failed; each is named
  130, 143  interrupted by a signal; run the same command again to resume

Every option can be set by an environment variable: IMGMV_ and the option's name
in capitals, with _ for -. Each verb has its own help: imgmv copy --help.";

/// Copies container images between registries, engines, archives and hosts
#[derive(Debug, Parser)]
#[command(name = "imgmv", version, about, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub output: OutputOptions,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Copy(Box<copy::CopyVerb>),
    Save(save::SaveVerb),
    Load(load::LoadVerb),
    Sync(Box<sync::SyncVerb>),
    Serve(serve::ServeVerb),
    Tag(tag::TagVerb),
    Delete(delete::DeleteVerb),
    List(list::ListVerb),
    Inspect(inspect::InspectVerb),
    Blob(blob::BlobVerb),
    Digest(digest::DigestVerb),
    Verify(verify::VerifyVerb),
    Diff(diff::DiffVerb),
    Cache(cache::CacheVerb),
    Login(login::LoginVerb),
    Logout(logout::LogoutVerb),
    Completions(completions::CompletionsVerb),
    #[command(hide = true)]
    Man(man::ManVerb),
}

impl Verb {
    pub fn run(self, run: &CliRun) -> Result<()> {
        match self {
            Verb::Copy(copy) => copy.run(run),
            Verb::Save(save) => save.run(run),
            Verb::Load(load) => load.run(run),
            Verb::Sync(sync) => sync.run(run),
            Verb::Serve(serve) => serve.run(run),
            Verb::Tag(tag) => tag.run(run),
            Verb::Delete(delete) => delete.run(run),
            Verb::List(list) => list.run(run),
            Verb::Inspect(inspect) => inspect.run(run),
            Verb::Blob(blob) => blob.run(run),
            Verb::Digest(digest) => digest.run(run),
            Verb::Verify(verify) => verify.run(run),
            Verb::Diff(diff) => diff.run(run),
            Verb::Cache(cache) => cache.run(run),
            Verb::Login(login) => login.run(run),
            Verb::Logout(logout) => logout.run(run),
            Verb::Completions(completions) => completions.run(run, Cli::command()),
            Verb::Man(man) => man.run(Cli::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::address::help::{PLACES, SERVE_FORMS};
    use clap::{Arg, Command};

    fn verbs() -> Vec<Command> {
        let mut command = Cli::command();
        command.build();
        command.get_subcommands().filter(|verb| verb.get_name() != "help").cloned().collect()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_has_its_environment_variable() {
        let options = |verb: &Command| verb.get_arguments().filter(|arg| arg.get_long().is_some()).cloned().collect();
        for (verb, option) in verbs().iter().flat_map(|verb| {
            let options: Vec<Arg> = options(verb);
            options.into_iter().map(|option| (verb.get_name().to_owned(), option))
        }) {
            let long = option.get_long().unwrap_or_default().to_owned();
            if long == "help" || long == "version" {
                continue;
            }
            let variable = format!("IMGMV_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(option.get_env().and_then(|name| name.to_str()), Some(&variable[..]), "imgmv {verb} --{long}");
            assert_eq!(option.is_hide_env_values_set(), long.ends_with("creds"), "imgmv {verb} --{long}");
        }
    }

    #[test]
    fn every_verb_teaches_by_example() {
        let places = format!("{PLACES}\n{SERVE_FORMS}");
        for verb in verbs().iter().filter(|verb| !verb.is_hide_set()) {
            let after = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.starts_with("Examples:\n  "), "{}", verb.get_name());
            assert!(after.contains(&format!("imgmv {}", verb.get_name())), "{}", verb.get_name());
            for line in after.lines().chain(places.lines()).chain(AFTER_HELP.lines()) {
                assert!(line.chars().count() <= 80, "wider than a terminal: {line}");
            }
        }
    }
}
