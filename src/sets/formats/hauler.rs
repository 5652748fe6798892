//! The images that hauler's manifests name: `kind: Images`, one document of several.

use super::super::Entry;
use super::super::builder::SetBuilder;
use super::super::tree::Value;
use super::{platforms, required};
use crate::error::Result;
use crate::message::shortened;

pub(super) fn read(document: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    let kind = required(document.field("kind"), document, "kind")?;
    if kind != "Images" {
        set.not_honoured(|| format!("kind: {}", shortened(kind)));
        return Ok(());
    }
    for field in document.fields()?.filter(|field| !field.value.is_null()) {
        match field.key {
            "apiVersion" | "kind" => {}
            "metadata" => annotations(field.value, set)?,
            "spec" => {
                for field in field.value.fields()?.filter(|field| !field.value.is_null()) {
                    match field.key {
                        "images" => images(field.value, set)?,
                        _ => set.skip(field),
                    }
                }
            }
            _ => set.skip(field),
        }
    }
    Ok(())
}

/// Annotations of hauler change the images; other metadata does not.
fn annotations(metadata: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    if let Some(annotations) = metadata.field("annotations") {
        for field in annotations.fields()? {
            set.skip(field);
        }
    }
    Ok(())
}

fn images(list: Value<'_>, set: &mut SetBuilder<'_>) -> Result<()> {
    for (nth, image) in list.items()?.enumerate() {
        let (mut name, mut of_image) = (None, Vec::new());
        for field in image.fields()?.filter(|field| !field.value.is_null()) {
            match field.key {
                "name" => name = Some(field.value),
                "platform" => of_image = platforms(field.value)?,
                _ => set.skip(field),
            }
        }
        let name = required(name, image, "name")?;
        set.add(Entry { platforms: of_image, ..Entry::named(&format!("spec.images[{nth}]"), name) })?;
    }
    Ok(())
}
