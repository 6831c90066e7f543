//! Users to items.
use super::{Folder, Model, Opens, environment, run};
use crate::generate::root;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::sync::Arc;
use xebec_core::{Datatype, Tensor, step::Step, tensor::bytes_elements};

/// The steps of `examples/recommendation`, and its models.
pub struct Recommendation {
    profile: Arc<dyn Step>,
    segment: Arc<dyn Step>,
    history: Arc<dyn Step>,
    vectors: Arc<dyn Step>,
    features: Arc<dyn Step>,
    categories: Arc<dyn Step>,
    nearest: Arc<dyn Step>,
    unseen: Arc<dyn Step>,
    best: Arc<dyn Step>,
    liked: Arc<dyn Step>,
    reasons: Arc<dyn Step>,
    popular_items: Arc<dyn Step>,
    popular_scores: Arc<dyn Step>,
    most_popular: Arc<dyn Step>,
    popular_reasons: Arc<dyn Step>,
    tower: Model,
    ranker: Model,
}

/// What a user is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommended {
    /// Ten of them.
    pub items: Vec<i64>,
    /// A score of each.
    pub scores: Vec<f32>,
    /// Why each.
    pub reasons: Vec<String>,
}

impl Recommended {
    /// A line for the judge of the example.
    pub fn line(&self, user: i64) -> Value {
        json!({"user": user, "items": self.items, "scores": self.scores, "reasons": self.reasons})
    }

    fn of(items: &Tensor, scores: &Tensor, reasons: &Tensor) -> anyhow::Result<Self> {
        let texts = bytes_elements(&reasons.data).map(|text| Ok(String::from_utf8(text?.to_vec())?));
        Ok(Self {
            items: bytemuck::pod_collect_to_vec(&items.data),
            scores: bytemuck::pod_collect_to_vec(&scores.data),
            reasons: texts.collect::<anyhow::Result<_>>()?,
        })
    }
}

impl Recommendation {
    /// Opens the example, whose tables must have been made.
    ///
    /// # Errors
    /// The library of the engine, a model or a table cannot be loaded.
    pub fn open() -> anyhow::Result<Self> {
        let folder = root().join("examples/recommendation");
        let (environment, opens) = (environment()?, Opens(Folder(folder.clone())));
        let model = |name: &str| Model::open(&environment, &folder.join("models").join(name));
        let of_user = |table: &str| {
            let table = format!("tables/{table}.npy");
            opens.step("lookup", &[("table", &table), ("keys", "tables/user_keys.npy"), ("missing", "zero")])
        };
        let of_item = |table: &str| opens.step("lookup", &[("table", &format!("tables/{table}.npy"))]);
        let popular = |table: &str| {
            let table = format!("tables/{table}.npy");
            opens.step("lookup", &[("table", &table), ("offsets", "tables/popular_offsets.npy")])
        };
        let texts = |missing: &str| {
            let settings = [
                ("file", "tables/item_names.txt"),
                ("template", "because you liked {}"),
                ("missing", missing),
            ];
            opens.step("labels", &settings)
        };
        let history = [
            ("table", "tables/user_history.npy"),
            ("keys", "tables/user_keys.npy"),
            ("offsets", "tables/user_history_offsets.npy"),
            ("missing", "zero"),
        ];
        Ok(Self {
            profile: of_user("user_profile")?,
            segment: of_user("user_segment")?,
            history: opens.step("lookup", &history)?,
            vectors: of_item("item_vectors")?,
            features: of_item("item_features")?,
            categories: of_item("item_category")?,
            nearest: opens.step("nearest", &[("table", "tables/item_vectors.npy"), ("k", "200")])?,
            unseen: opens.step("difference", &[])?,
            best: opens.step("diversify", &[("k", "10"), ("per_group", "4")])?,
            liked: opens.step("most_similar", &[("table", "tables/item_likeness.npy")])?,
            reasons: texts("goes with your profile")?,
            popular_items: popular("popular_items")?,
            popular_scores: popular("popular_scores")?,
            most_popular: opens.step("top_k", &[("k", "10")])?,
            popular_reasons: texts("popular now")?,
            tower: model("user_tower.onnx")?,
            ranker: model("ranker.onnx")?,
        })
    }

    /// What a user is told.
    ///
    /// # Errors
    /// A step or model is not what the example has.
    pub fn recommend(&mut self, user: i64) -> anyhow::Result<Recommended> {
        let data = user.to_le_bytes().to_vec().into();
        let user = Tensor { name: "user".into(), datatype: Datatype::Int64, shape: vec![1], data };
        let [profile, known] = run(&*self.profile, &[&user])?;
        let [segment, _] = run(&*self.segment, &[&user])?;
        let [history, _] = run(&*self.history, &[&user])?;
        if *known.data.first().context("nobody knows whether the user is known")? == 0 {
            return self.popular(&segment, &history);
        }
        let [history_vectors, _] = run(&*self.vectors, &[&history])?;
        let user_inputs =
            [("history_vectors", &history_vectors), ("profile", &profile), ("segment", &segment)];
        let query = self.tower.run(&user_inputs)?;
        let [near, _] = run(&*self.nearest, &[&query])?;
        let [candidates] = run(&*self.unseen, &[&near, &history])?;
        let [vectors, _] = run(&*self.vectors, &[&candidates])?;
        let [features, _] = run(&*self.features, &[&candidates])?;
        let [categories, _] = run(&*self.categories, &[&candidates])?;
        let [history_categories, _] = run(&*self.categories, &[&history])?;
        let chances = self.ranker.run(&[
            ("query", &query),
            ("history_vectors", &history_vectors),
            ("history_categories", &history_categories),
            ("profile", &profile),
            ("segment", &segment),
            ("ids", &candidates),
            ("vectors", &vectors),
            ("categories", &categories),
            ("features", &features),
        ])?;
        let [items, scores] = run(&*self.best, &[&candidates, &chances, &categories])?;
        let [liked, _] = run(&*self.liked, &[&items, &history])?;
        let [reasons] = run(&*self.reasons, &[&liked])?;
        Recommended::of(&items, &scores, &reasons)
    }

    fn popular(&self, segment: &Tensor, history: &Tensor) -> anyhow::Result<Recommended> {
        let [items, _] = run(&*self.popular_items, &[segment])?;
        let [scores, _] = run(&*self.popular_scores, &[segment])?;
        let [items, scores] = run(&*self.most_popular, &[&items, &scores])?;
        let [liked, _] = run(&*self.liked, &[&items, history])?;
        let [reasons] = run(&*self.popular_reasons, &[&liked])?;
        Recommended::of(&items, &scores, &reasons)
    }
}
