//! Everything that is wrong, or odd, about the documents of a gateway, without starting it.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::StreamExt;
use gray_config::{
    ConfigSource, Document, Documents, Faults, FileSource, KeyPath, Override, Problem, Problems,
    Update,
};
use gray_lb::{Directory, ServiceName};
use gray_propagation::{GrayStatus, Lane};

use crate::nacos::Servers;
use crate::properties::ListProperties;
use crate::registered::Registered;
use crate::revision::{Revision, parse_documents, warn_of_empty_lane};
use crate::settings::{Loaded, Settings};

/// The largest file that is read.
const MAX_FILE: u64 = 64 << 20;

/// What a gateway would start with.
#[derive(Debug)]
pub struct Checked {
    /// The static configuration, where it is right.
    pub settings: Option<Settings>,
    /// The rules, where they are right.
    pub revision: Option<Revision>,
    /// The instances that are registered.
    pub directory: Directory,
    /// Everything that is wrong or odd.
    pub problems: Problems,
    /// The rules as they are written.
    documents: Documents,
}

/// Reads the static configuration and the documents that it names.
pub async fn check(path: &Path, overrides: &[Override]) -> Checked {
    let mut checked = Checked {
        settings: None,
        revision: None,
        directory: Directory::default(),
        problems: Problems::default(),
        documents: Documents::default(),
    };
    let (settings, document, mut faults) = match Settings::load(path, overrides) {
        Ok(Loaded { settings, document, faults }) => (settings, document, faults),
        Err(problems) => {
            checked.problems = problems;
            return checked;
        }
    };
    let is_right = !faults.has_errors();
    checked.read_rules(&settings, is_right).await;
    if !is_right {
        // Where services are, and whether they fit the rules, cannot be said by what is wrong.
        checked.problems.extend(Registered::in_files(&settings).problems.0);
        checked.problems.0.splice(0..0, document.problems(&faults).0);
        return checked;
    }
    let registered = Registered::read(&settings).await;
    checked.directory = registered.directory(&settings);
    checked.problems.extend(registered.problems.0);
    checked.compare(&settings, &document, &mut faults, registered.complete);
    checked.settings = Some(settings);
    checked
}

impl Checked {
    /// Reads the rules: those in files, and where the configuration is right also those on Nacos.
    async fn read_rules(&mut self, settings: &Settings, is_right: bool) {
        let rules = &settings.properties.rules;
        let lists = rules.lists.values().filter_map(|list| match list {
            ListProperties::File(path) => Some(path.clone()),
            ListProperties::DataId(_) => None,
        });
        let files: Vec<_> = lists.chain(rules.files.iter().cloned()).collect();
        let (mut documents, mut complete) = (Documents::default(), true);
        for file in files {
            match FileSource::new([file], MAX_FILE).read() {
                Ok(read) => documents.0.extend(read.0),
                Err(error) => {
                    complete = false;
                    self.problems.extend([Problem::whole(error.source_name, error.reason)]);
                }
            }
        }
        if rules.nacos.is_some() {
            complete &= is_right && self.read_nacos(settings, &mut documents).await;
        }
        if documents.0.is_empty() {
            return;
        }
        match parse_documents(&documents, &settings.rule_documents) {
            // What is odd about a part of the documents may be none of the whole.
            Ok(_) if !complete => return,
            Ok((revision, warnings)) => {
                self.problems.extend(warnings.0);
                self.revision = Some(revision);
            }
            Err(problems) => {
                let lists = &settings.rule_documents.lists;
                let has_lists = lists.keys().all(|list| documents.0.contains_key(list));
                // A rule may name a list that could not be read.
                let certain = problems
                    .0
                    .into_iter()
                    .filter(|it| has_lists || !it.message.starts_with("there is no list"));
                self.problems.extend(certain);
            }
        }
        self.documents = documents;
    }

    /// Asks Nacos for its documents, once.
    async fn read_nacos(&mut self, settings: &Settings, documents: &mut Documents) -> bool {
        let mut servers = Servers::new(settings.properties.nacos.clone());
        let Some(source) = servers.rules(&settings.properties) else { return true };
        match Box::new(source).updates().next().await {
            Some(Update::Documents(more)) => {
                documents.0.extend(more.0);
                true
            }
            Some(Update::Unavailable(error)) => {
                self.problems.extend([Problem::whole(error.source_name, error.reason)]);
                false
            }
            None => false,
        }
    }

    /// Warns where the documents do not fit together.
    fn compare(
        &mut self,
        settings: &Settings,
        document: &Document,
        faults: &mut Faults,
        complete: bool,
    ) {
        let discovery = &settings.properties.discovery;
        if discovery.files.is_empty() && discovery.nacos.is_empty() {
            let message = "no registry is named, so that no service has any instance: write \
                           `discovery: {files: [registry.yaml]}` or `discovery: {nacos: [{}]}`";
            faults.warning(&KeyPath::ROOT.key("discovery"), message);
        }
        for (index, route) in settings.routes.iter().enumerate() {
            let registered = self.directory.get(&route.service);
            if complete && registered.is_none_or(|subsets| subsets.registered().is_empty()) {
                let at = KeyPath::ROOT.key("routes").index(index).key("service");
                let places = settings.properties.discovery.places(&settings.properties.nacos);
                let service = &route.service;
                faults.warning(&at, format!("no instance of {service} is registered in {places}"));
            }
        }
        self.problems.extend(document.problems(faults).0);
        let Some(revision) = &self.revision else { return };
        let routed: BTreeSet<ServiceName> = settings.routes.services();
        for service in routed.iter().filter(|_| complete) {
            let lanes = revision.lanes.of(service);
            let Some(subsets) = self.directory.get(service) else { continue };
            let all: BTreeSet<Lane> =
                lanes.versions.keys().chain(&revision.open).copied().collect();
            for lane in all {
                if lanes.routed && subsets.of(GrayStatus::Gray(lane), lanes).is_empty() {
                    let (rules, how) = (&self.documents, &settings.rule_documents);
                    let version = lanes.versions.get(&lane);
                    let odd = warn_of_empty_lane(service, lane, version, rules, how);
                    self.problems.extend(odd.0);
                }
            }
        }
    }
}
