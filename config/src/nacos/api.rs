//! What can be asked of a server over a [`Link`].

use std::time::Duration;

use serde_json::{Value, json};
use tracing::warn;

use super::message::{
    ChangedConfig, ConfigAnswer, ConfigKey, ListenAnswer, NacosInstance, NacosService,
    ServiceAnswer, ServiceListAnswer,
};
use super::{Link, NacosError};

impl Link {
    /// Reads a document and its md5; `None` where there is none of that name.
    ///
    /// # Errors
    ///
    /// See [`NacosError`].
    pub async fn config(&self, key: &ConfigKey) -> Result<Option<(String, String)>, NacosError> {
        const NOT_FOUND: i64 = 300;
        let body = json!({ "dataId": key.data_id, "group": key.group, "tenant": self.tenant() });
        match self.request::<ConfigAnswer>("ConfigQueryRequest", body).await {
            Ok(answer) => {
                Ok(answer.content.map(|content| (content, answer.md5.unwrap_or_default())))
            }
            Err(NacosError::Refused { code: NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks to be told when one of these documents changes; returns those that already have.
    ///
    /// # Errors
    ///
    /// See [`NacosError`].
    pub async fn listen(&self, seen: &[(ConfigKey, String)]) -> Result<Vec<ConfigKey>, NacosError> {
        let context = |(key, md5): &(ConfigKey, String)| {
            json!({
                "dataId": key.data_id, "group": key.group, "tenant": self.tenant(), "md5": md5,
            })
        };
        let contexts: Vec<Value> = seen.iter().map(context).collect();
        let body = json!({ "listen": true, "configListenContexts": contexts });
        let answer: ListenAnswer = self.request("ConfigBatchListenRequest", body).await?;
        let key =
            |changed: ChangedConfig| ConfigKey { data_id: changed.data_id, group: changed.group };
        Ok(answer.changed_configs.into_iter().map(key).collect())
    }

    /// Writes a document; with `cas_md5` only over the content that has that md5.
    ///
    /// # Errors
    ///
    /// See [`NacosError`]; after [`NacosError::Timeout`] the write may have happened all the same.
    pub async fn publish(
        &self,
        key: &ConfigKey,
        content: &str,
        cas_md5: Option<&str>,
    ) -> Result<(), NacosError> {
        let body = json!({
            "dataId": key.data_id, "group": key.group, "tenant": self.tenant(),
            "content": content, "casMd5": cas_md5, "additionMap": { "type": "yaml" },
        });
        self.request::<Value>("ConfigPublishRequest", body).await.map(drop)
    }

    /// Subscribes to a service and returns how it looks now.
    ///
    /// # Errors
    ///
    /// See [`NacosError`].
    pub async fn subscribe(&self, service: &str, group: &str) -> Result<NacosService, NacosError> {
        let body = self.service_body(service, group, json!({ "subscribe": true }));
        let answer: ServiceAnswer = self.request("SubscribeServiceRequest", body).await?;
        Ok(answer.service_info.unwrap_or_default())
    }

    /// Asks the server how a service looks now.
    ///
    /// # Errors
    ///
    /// See [`NacosError`].
    pub async fn service(&self, service: &str, group: &str) -> Result<NacosService, NacosError> {
        let body = self.service_body(service, group, json!({ "healthyOnly": false, "udpPort": 0 }));
        let answer: ServiceAnswer = self.request("ServiceQueryRequest", body).await?;
        Ok(answer.service_info.unwrap_or_default())
    }

    /// Lists the services of a group, all pages.
    ///
    /// # Errors
    ///
    /// See [`NacosError`].
    pub async fn services(&self, group: &str) -> Result<Vec<String>, NacosError> {
        const PAGE: usize = 500;
        let mut names = Vec::new();
        for page in 1..=100 {
            let fields = json!({ "pageNo": page, "pageSize": PAGE, "selector": "" });
            let body = self.service_body("", group, fields);
            let answer: ServiceListAnswer = self.request("ServiceListRequest", body).await?;
            let complete = answer.service_names.len() < PAGE;
            names.extend(answer.service_names);
            if complete || names.len() >= answer.count {
                break;
            }
        }
        Ok(names)
    }

    /// Registers an instance; it stays for as long as this link does, and must be registered anew
    /// in every epoch.
    ///
    /// # Errors
    ///
    /// See [`NacosError`].
    pub async fn register(
        &self,
        service: &str,
        group: &str,
        instance: &NacosInstance,
    ) -> Result<(), NacosError> {
        self.instance("registerInstance", service, group, instance).await
    }

    /// Keeps an instance registered for as long as the future is polled: the server forgets it with
    /// each connection.
    pub async fn keep_registered(&self, service: &str, group: &str, instance: &NacosInstance) {
        const PAUSE: Duration = Duration::from_secs(1);
        let mut states = self.state();
        let mut registered = 0;
        loop {
            let (epoch, connected) = {
                let state = states.borrow_and_update();
                (state.epoch, state.connected)
            };
            if connected && epoch != registered {
                match self.register(service, group, instance).await {
                    Ok(()) => registered = epoch,
                    Err(error) => {
                        warn!(service, %error, "not registered, trying again");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                }
            }
            if states.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes an instance off.
    ///
    /// # Errors
    ///
    /// See [`NacosError`].
    pub async fn deregister(
        &self,
        service: &str,
        group: &str,
        instance: &NacosInstance,
    ) -> Result<(), NacosError> {
        self.instance("deregisterInstance", service, group, instance).await
    }

    async fn instance(
        &self,
        action: &str,
        service: &str,
        group: &str,
        instance: &NacosInstance,
    ) -> Result<(), NacosError> {
        let fields = json!({ "type": action, "instance": instance });
        let body = self.service_body(service, group, fields);
        self.request::<Value>("InstanceRequest", body).await.map(drop)
    }

    fn service_body(&self, service: &str, group: &str, fields: Value) -> Value {
        let namespace = self.properties().namespace_name();
        let mut body = json!({
            "namespace": namespace, "serviceName": service, "groupName": group,
            "clusters": "", "module": "naming",
        });
        if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
            body.extend(fields);
        }
        body
    }
}
