//! Settings of a step, read once; what is left over is an error.
use bytes::Bytes;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    ops::RangeInclusive,
    str::FromStr,
};
use xebec_core::step::Files;

/// See the module's text.
pub(crate) struct Settings<'a> {
    all: &'a BTreeMap<String, String>,
    files: &'a dyn Files,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Settings<'a> {
    pub(crate) fn new(all: &'a BTreeMap<String, String>, files: &'a dyn Files) -> Self {
        Self { all, files, asked: RefCell::default() }
    }

    /// The file that a setting names, with its name.
    pub(crate) fn file(&self, name: &'static str) -> Result<(&'a str, Bytes), String> {
        let file = self
            .text(name)
            .ok_or_else(|| format!("setting '{name}' is missing: write the name of a file"))?;
        let bytes = self.files.map(file).map_err(|why| format!("setting '{name}': {why}"))?;
        Ok((file, bytes))
    }

    pub(crate) fn text(&self, name: &'static str) -> Option<&'a str> {
        self.asked.borrow_mut().insert(name);
        self.all.get(name).map(String::as_str)
    }

    /// A number within `range`, or `default`; without a default it must be there.
    pub(crate) fn number<T: FromStr + PartialOrd + Display + Copy>(
        &self,
        name: &'static str,
        default: Option<T>,
        range: RangeInclusive<T>,
    ) -> Result<T, String> {
        let (least, most) = (range.start(), range.end());
        let wanted = || format!("write a number from {least} to {most}");
        let Some(text) = self.text(name) else {
            return default.ok_or_else(|| format!("setting '{name}' is missing: {}", wanted()));
        };
        let number = text.trim().parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("setting '{name}' is '{}': {}", shown(text), wanted()))
    }

    /// Several numbers, divided by commas.
    pub(crate) fn numbers<const N: usize>(
        &self,
        name: &'static str,
        default: [f32; N],
    ) -> Result<[f32; N], String> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let wrong = || format!("setting '{name}' is '{}': write {N} numbers, divided by commas", shown(text));
        let all: Vec<f32> =
            text.split(',').map(|one| one.trim().parse()).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let all: [f32; N] = all.try_into().map_err(|_| wrong())?;
        if all.iter().all(|number| number.is_finite()) { Ok(all) } else { Err(wrong()) }
    }

    /// One of several words, the first of which is the default.
    pub(crate) fn word<T: Copy>(&self, name: &'static str, words: &[(&str, T)]) -> Result<T, String> {
        let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let Some(text) = self.text(name) else {
            return words.first().map(|(_, value)| *value).ok_or_else(known);
        };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.ok_or_else(|| format!("setting '{name}' is '{}': write one of {}", shown(text), known()))
    }

    pub(crate) fn flag(&self, name: &'static str, default: bool) -> Result<bool, String> {
        match self.text(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(text) => Err(format!("setting '{name}' is '{}': write true or false", shown(text))),
        }
    }

    /// Nothing is left that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), String> {
        let asked = self.asked.into_inner();
        let Some(unknown) = self.all.keys().find(|name| !asked.contains(name.as_str())) else {
            return Ok(());
        };
        let known = match asked.into_iter().collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "it has none".to_owned(),
            some => format!("its settings are {some}"),
        };
        Err(format!("setting '{}' is unknown: {known}", shown(unknown)))
    }
}

/// What of a text stands in a message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    struct NoFiles;

    impl Files for NoFiles {
        fn map(&self, name: &str) -> Result<Bytes, String> {
            Err(format!("there is no {name}"))
        }
    }

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn settings_are_read_within_their_ranges_and_the_rest_is_named() {
        let all = map(&[("width", "640"), ("mean", "0.5, 0.25,1"), ("layout", "nhwc"), ("swap", "true")]);
        let settings = Settings::new(&all, &NoFiles);
        assert_eq!(settings.number("width", None, 1..=4096), Ok(640));
        assert_eq!(settings.number("height", Some(7), 1..=4096), Ok(7));
        assert_eq!(settings.numbers("mean", [0.0; 3]), Ok([0.5, 0.25, 1.0]));
        assert_eq!(settings.word("layout", &[("nchw", 1), ("nhwc", 2)]), Ok(2));
        assert_eq!(settings.flag("swap", false), Ok(true));
        assert_eq!(settings.finish(), Ok(()));
        let all =
            map(&[("width", "0"), ("mean", "1,2"), ("layout", "up"), ("swap", "yes"), ("colour", "red")]);
        let settings = Settings::new(&all, &NoFiles);
        let told = [
            settings.number("width", None, 1..=4096).unwrap_err(),
            settings.number("depth", None, 1..=4).unwrap_err(),
            settings.numbers("mean", [0.0; 3]).unwrap_err(),
            settings.word("layout", &[("nchw", 1), ("nhwc", 2)]).unwrap_err(),
            settings.flag("swap", false).unwrap_err(),
            settings.finish().unwrap_err(),
        ];
        let wants = [
            "setting 'width' is '0': write a number from 1 to 4096",
            "setting 'depth' is missing",
            "write 3 numbers",
            "write one of nchw, nhwc",
            "write true or false",
            "setting 'colour' is unknown: its settings are depth, layout, mean, swap, width",
        ];
        for (told, want) in told.iter().zip(wants) {
            assert!(told.contains(want), "{told}");
        }
    }
}
