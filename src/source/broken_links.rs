//! The links that a store's own server needs to serve an image.

/// The maximum number of links that are named.
const MAX_NAMED: usize = 20;

/// Links that are missing or broken, although imgmv can read what they lead to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokenLinks {
    count: usize,
    /// A sentence for each of the first links.
    named: Vec<String>,
}

impl BrokenLinks {
    /// Adds a link, with a sentence that has its path.
    pub fn add(&mut self, sentence: impl ToString) {
        self.count += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(sentence.to_string());
        }
    }

    /// Adds the links of `other`.
    pub fn merge(&mut self, other: BrokenLinks) {
        self.count += other.count;
        self.named.extend(other.named);
        self.named.truncate(MAX_NAMED);
    }

    /// The number of links.
    pub fn count(&self) -> usize {
        self.count
    }

    /// A sentence for each of the first links, and one for the others.
    pub fn sentences(self) -> Vec<String> {
        let more = self.count.saturating_sub(self.named.len());
        let more = (more > 0).then(|| format!("{more} more links are missing or broken"));
        self.named.into_iter().chain(more).collect()
    }
}
