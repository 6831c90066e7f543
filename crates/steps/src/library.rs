//! Steps by name.
use crate::{
    boxes, decode, lookup, nearest, nms, pixels, rank, resize,
    settings::{Settings, shown},
    text, yolo,
};
use std::sync::Arc;
use xebec_core::step::{Recipe, Step, Steps};

/// Every built-in step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Library;

/// A step's name, what it does, and how it is opened.
struct Kind {
    name: &'static str,
    about: &'static str,
    open: fn(&Settings<'_>) -> Result<Arc<dyn Step>, String>,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "image_decode",
        about: "a JPEG, PNG or WebP file becomes pixels",
        open: |settings| Ok(Arc::new(decode::Decode::open(settings)?)),
    },
    Kind {
        name: "letterbox",
        about: "scales a picture into a box and fills the rest",
        open: |settings| Ok(Arc::new(resize::Letterbox::open(settings)?)),
    },
    Kind {
        name: "resize",
        about: "scales a picture to a size",
        open: |settings| Ok(Arc::new(resize::Resize::open(settings)?)),
    },
    Kind {
        name: "crop",
        about: "cuts a part out of a picture",
        open: |_| Ok(Arc::new(pixels::Crop::open())),
    },
    Kind {
        name: "normalise",
        about: "pixels become the numbers that a model takes",
        open: |settings| Ok(Arc::new(pixels::Normalise::open(settings)?)),
    },
    Kind {
        name: "yolo_decode",
        about: "the output of a YOLO detector becomes boxes",
        open: |settings| Ok(Arc::new(yolo::Decode::open(settings)?)),
    },
    Kind {
        name: "nms",
        about: "of boxes that overlap, the best stays",
        open: |settings| Ok(Arc::new(nms::Nms::open(settings)?)),
    },
    Kind {
        name: "scale_boxes",
        about: "boxes go back to the picture before letterbox",
        open: |_| Ok(Arc::new(boxes::ScaleBoxes::open())),
    },
    Kind {
        name: "draw",
        about: "draws boxes on a picture and packs it",
        open: |settings| Ok(Arc::new(pixels::Draw::open(settings)?)),
    },
    Kind {
        name: "softmax",
        about: "rows of numbers become probabilities",
        open: |_| Ok(Arc::new(rank::Softmax::open())),
    },
    Kind {
        name: "top_k",
        about: "the best of candidates with scores",
        open: |settings| Ok(Arc::new(rank::TopK::open(settings)?)),
    },
    Kind {
        name: "merge",
        about: "two lists of candidates become one",
        open: |settings| Ok(Arc::new(rank::Merge::open(settings)?)),
    },
    Kind {
        name: "rerank",
        about: "candidates by two scores together",
        open: |settings| Ok(Arc::new(rank::Rerank::open(settings)?)),
    },
    Kind {
        name: "diversify",
        about: "the best of candidates, few of each group",
        open: |settings| Ok(Arc::new(rank::Diversify::open(settings)?)),
    },
    Kind {
        name: "lookup",
        about: "ids become rows of a table",
        open: |settings| Ok(Arc::new(lookup::Lookup::open(settings)?)),
    },
    Kind {
        name: "labels",
        about: "ids become texts",
        open: |settings| Ok(Arc::new(lookup::Labels::open(settings)?)),
    },
    Kind {
        name: "nearest",
        about: "the items whose vectors go best with a query",
        open: |settings| Ok(Arc::new(nearest::Nearest::open(settings)?)),
    },
    Kind {
        name: "most_similar",
        about: "of some items the one that goes best with each of others",
        open: |settings| Ok(Arc::new(nearest::MostSimilar::open(settings)?)),
    },
    Kind {
        name: "tokenise",
        about: "texts become token ids",
        open: |settings| Ok(Arc::new(text::Tokenise::open(settings)?)),
    },
    Kind {
        name: "pool",
        about: "vectors of tokens become one of the text",
        open: |settings| Ok(Arc::new(text::Pool::open(settings)?)),
    },
    Kind {
        name: "difference",
        about: "candidates that are not among others",
        open: |_| Ok(Arc::new(rank::Difference::open())),
    },
];

impl Steps for Library {
    fn open(&self, recipe: Recipe<'_>) -> Result<Arc<dyn Step>, String> {
        let Recipe { kind, settings, files } = recipe;
        let known = || KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
        let found = KINDS.iter().find(|known| known.name == kind);
        let found =
            found.ok_or_else(|| format!("step '{}' is unknown; the steps are {}", shown(kind), known()))?;
        let settings = Settings::new(settings, files);
        let step = (found.open)(&settings).map_err(|why| format!("step '{kind}': {why}"))?;
        settings.finish().map_err(|why| format!("step '{kind}': {why}"))?;
        Ok(step)
    }

    fn kinds(&self) -> Vec<(&'static str, &'static str)> {
        KINDS.iter().map(|kind| (kind.name, kind.about)).collect()
    }
}

#[cfg(test)]
mod tests;
