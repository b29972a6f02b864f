"""Wrangler's schema: environments, unknown keys, and what Cloudflare rejects is rejected."""

from typing import Any, ClassVar

import pytest

from cfqueue.config import Config, ConfigurationWarning, Producer, load
from cfqueue.errors import ConfigurationError, QueueConsumerConflict


def loaded(data: dict[str, Any], **options: Any) -> Config:
    return load(data, environ={}, **options)


def error_of(data: dict[str, Any], **options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        loaded(data, **options)
    return str(caught.value)


def with_consumer(**settings: Any) -> dict[str, Any]:
    return {"queues": {"consumers": [{"queue": "jobs", **settings}]}}


def with_producer(**settings: Any) -> dict[str, Any]:
    return {"queues": {"producers": [{"binding": "JOBS", "queue": "jobs", **settings}]}}


class TestEnvironments:
    DATA: ClassVar[dict[str, Any]] = {
        "name": "shop",
        "queues": {"consumers": [{"queue": "jobs"}]},
        "vars": {"LEVEL": "top"},
        "triggers": {"crons": ["* * * * *"]},
        "migrations": [{"tag": "v1"}],
        "env": {
            "staging": {"queues": {"consumers": [{"queue": "jobs-staging"}]}, "vars": {"LEVEL": "staging"}},
            "bare": {},
        },
    }

    def test_without_a_choice_the_top_level_applies(self) -> None:
        config = loaded(self.DATA)
        assert (config.env, list(config.consumers), config.vars) == (None, ["jobs"], {"LEVEL": "top"})

    def test_an_environment_replaces_queues_and_vars(self) -> None:
        config = loaded(self.DATA, env="staging")
        assert (config.env, list(config.consumers), config.vars) == (
            "staging",
            ["jobs-staging"],
            {"LEVEL": "staging"},
        )

    def test_name_triggers_and_migrations_are_inherited(self) -> None:
        config = loaded(self.DATA, env="staging")
        assert config.name == "shop"
        assert config.triggers == {"crons": ["* * * * *"]}
        assert config.migrations == ({"tag": "v1"},)

    def test_queues_and_vars_are_not_inherited_and_that_is_said(self) -> None:
        with pytest.warns(ConfigurationWarning) as caught:
            config = loaded(self.DATA, env="bare")
        assert (config.consumers, config.vars) == ({}, {})
        texts = [str(warning.message) for warning in caught]
        assert [text.split(" ")[1] for text in texts] == ["env.bare.queues", "env.bare.vars"]
        assert all("environments do not inherit it" in text for text in texts)

    def test_an_environment_that_is_not_there_is_an_error(self) -> None:
        text = error_of(self.DATA, env="stagging")
        assert "there is no environment 'stagging'" in text
        assert "The file has: 'staging', 'bare'. Did you mean 'staging'?" in text

    def test_a_file_without_environments_has_none_to_choose(self) -> None:
        assert "The file has: none." in error_of({"name": "shop"}, env="staging")

    def test_without_a_file_the_choice_means_nothing(self) -> None:
        assert load(None, environ={"CFQUEUE_ENV": "staging"}).env is None

    def test_an_error_in_an_environment_names_its_full_key(self) -> None:
        data = {"env": {"staging": with_consumer(max_retries=-1)}}
        assert "config: env.staging.queues.consumers[0].max_retries is -1;" in error_of(data, env="staging")


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("data", "text"),
        [
            ({"queue": {}}, "config: queue is not a known key; it is ignored. Did you mean 'queues'?"),
            ({"queues": {"consumer": []}}, "config: queues.consumer is .* Did you mean 'consumers'"),
            (with_consumer(max_batch_sizes=1), r"queues.consumers\[0\].max_batch_sizes .*'max_batch_size'"),
            (with_consumer(maxBatchSize=1), r"queues.consumers\[0\].maxBatchSize .*'max_batch_size'"),
            (with_producer(delay=1), r"queues.producers\[0\].delay is not a known key; it is ignored."),
            ({"env": {"a": {"var": {}}}}, "config: env.a.var is .* Did you mean 'vars'?"),
            ({"cfqueue": {"broker": ""}}, "config: cfqueue.broker is .* Did you mean 'broker_url'?"),
        ],
    )
    def test_a_key_that_nobody_knows_warns_with_a_suggestion(self, data: dict[str, Any], text: str) -> None:
        with pytest.warns(ConfigurationWarning, match=text):
            loaded(data)

    def test_a_warning_points_at_the_line_of_the_caller(self) -> None:
        with pytest.warns(ConfigurationWarning) as caught:
            loaded({"nonsense": 1})
        assert caught[0].filename == __file__

    def test_what_wrangler_knows_and_we_do_not_use_is_silent(self) -> None:
        loaded(
            {
                "$schema": "x",
                "main": "src/index.ts",
                "compatibility_date": "2026-01-01",
                "observability": {"enabled": True},
                "r2_buckets": [{"binding": "FILES"}],
                "dev": {"port": 1},
                **with_consumer(visibility_timeout_ms=1000, type="worker", max_concurrency=None),
                "env": {"a": {"services": []}},
            }
        )


class TestProducers:
    def test_a_producer_has_binding_and_queue(self) -> None:
        assert loaded(with_producer(remote=False)).producers == {"JOBS": Producer("JOBS", "jobs")}

    def test_a_delivery_delay_applies_and_warns(self) -> None:
        with pytest.warns(ConfigurationWarning, match="Cloudflare ignores it in a file since 2024"):
            config = loaded(with_producer(delivery_delay=60))
        assert config.delivery_delay("jobs") == 60
        assert config.delivery_delay("other") == 0

    @pytest.mark.filterwarnings("ignore:.*delivery_delay")
    def test_a_delivery_delay_belongs_to_the_queue_and_so_to_all_its_bindings(self) -> None:
        one = {"binding": "ONE", "queue": "jobs", "delivery_delay": 60}
        two = {"binding": "TWO", "queue": "jobs"}
        config = loaded({"queues": {"producers": [two, one]}})
        assert {producer.delivery_delay for producer in config.producers.values()} == {60}
        text = error_of({"queues": {"producers": [one, two | {"delivery_delay": 0}]}})
        assert "producers[1].delivery_delay is 0, but config: queues.producers[0] has 60" in text

    def test_a_queue_without_a_name_is_called_as_wrangler_deploy_calls_it(self) -> None:
        data = {"name": "shop", "queues": {"producers": [{"binding": "MAIL_OUT"}]}}
        assert loaded(data).producers["MAIL_OUT"].queue == "shop-mail-out"

    def test_a_queue_without_a_name_in_a_file_without_a_name_is_an_error(self) -> None:
        assert "producers[0].queue is missing" in error_of({"queues": {"producers": [{"binding": "A"}]}})

    def test_a_producer_needs_a_binding(self) -> None:
        text = error_of({"queues": {"producers": [{"queue": "jobs"}]}})
        assert "queues.producers[0].binding is missing" in text

    @pytest.mark.parametrize("binding", ["", "my-queue", "1st", "class", "__class__", 5, None, "a b"])
    def test_a_binding_must_be_able_to_stand_after_env(self, binding: Any) -> None:
        assert "can stand after `env.`" in error_of(with_producer(binding=binding))

    @pytest.mark.parametrize(
        ("other", "place"),
        [
            ({"vars": {"JOBS": 1}}, "vars.JOBS"),
            ({"kv_namespaces": [{"binding": "JOBS"}]}, "kv_namespaces[0]"),
            ({"d1_databases": [{"binding": "JOBS"}]}, "d1_databases[0]"),
            ({"durable_objects": {"bindings": [{"name": "JOBS"}]}}, "durable_objects.bindings[0]"),
        ],
    )
    def test_a_name_in_env_is_used_once(self, other: dict[str, Any], place: str) -> None:
        text = error_of(with_producer() | other)
        assert f"producers[0].binding is 'JOBS', which config: {place} uses already" in text

    def test_two_producers_do_not_share_a_binding(self) -> None:
        twice = {"queues": {"producers": [{"binding": "A", "queue": "a"}, {"binding": "A", "queue": "b"}]}}
        assert "producers[1].binding is 'A', which config: queues.producers[0] uses" in error_of(twice)


class TestConsumers:
    def test_a_queue_cannot_be_its_own_dead_letter_queue(self) -> None:
        text = error_of(with_consumer(dead_letter_queue="jobs"))
        assert "consumers[0].dead_letter_queue is 'jobs': a queue cannot be its own dead-letter" in text

    def test_a_queue_has_one_consumer(self) -> None:
        with pytest.raises(QueueConsumerConflict) as caught:
            loaded({"queues": {"consumers": [{"queue": "jobs"}, {"queue": "a"}, {"queue": "jobs"}]}})
        assert "consumers[2].queue is 'jobs', which config: queues.consumers[0] consumes" in str(caught.value)

    @pytest.mark.parametrize("kind", ["http_pull", "Worker", "", None, 5, []])
    def test_only_worker_consumers_stand_in_a_file(self, kind: Any) -> None:
        text = error_of(with_consumer(type=kind))
        assert 'Only "worker" consumers can be configured in your Wrangler configuration.' in text
        assert ("Did you mean 'worker'?" in text) == (kind == "Worker")

    @pytest.mark.parametrize("name", ["my jobs", "-jobs", "jobs-", "a_b", "", "a" * 64, "jöbs", "jobs\n", 5])
    def test_a_bad_queue_name_is_refused(self, name: Any) -> None:
        text = error_of({"queues": {"consumers": [{"queue": name}]}})
        assert text.startswith("config: queues.consumers[0].queue is ")
        assert "1 to 63 letters" in text

    def test_a_bad_queue_name_comes_with_a_good_one(self) -> None:
        assert "Did you mean 'my-jobs'?" in error_of({"queues": {"consumers": [{"queue": "my jobs"}]}})

    def test_a_consumer_needs_a_queue(self) -> None:
        with pytest.warns(ConfigurationWarning, match="Queue is not a known key"):
            text = error_of({"queues": {"consumers": [{"Queue": "jobs"}]}})
        assert "queues.consumers[0].queue is missing." in text
        assert "'Queue'" in text

    def test_dead_letter_queues_in_a_circle_warn(self) -> None:
        data = {
            "queues": {
                "consumers": [
                    {"queue": "b", "dead_letter_queue": "c"},
                    {"queue": "c", "dead_letter_queue": "a"},
                    {"queue": "a", "dead_letter_queue": "b"},
                    {"queue": "d", "dead_letter_queue": "a"},
                ]
            }
        }
        with pytest.warns(ConfigurationWarning, match="a → b → c → a") as caught:
            loaded(data)
        assert len(caught) == 1

    def test_a_chain_of_dead_letter_queues_is_silent(self) -> None:
        config = loaded({"queues": {"consumers": [{"queue": "jobs"}, {"queue": "jobs-dlq"}]}})
        assert config.consumers["jobs-dlq"].dead_letter_queue == "jobs-dlq-dlq"


class TestShapes:
    @pytest.mark.parametrize(
        ("data", "text"),
        [
            ({"queues": []}, "config: queues is []; it must be a table."),
            ({"queues": {"consumers": {}}}, "config: queues.consumers is {}; it must be a list of tables."),
            ({"queues": {"consumers": "jobs"}}, "config: queues.consumers is 'jobs'; it must be a list"),
            (
                {"queues": {"producers": ["jobs"]}},
                "config: queues.producers[0] is 'jobs'; it must be a table.",
            ),
            ({"vars": 5}, "config: vars is 5; it must be a table."),
            ({"env": []}, "config: env is []; it must be a table."),
            ({"env": {"a": 1}}, "config: env.a is 1; it must be a table."),
            ({"migrations": {}}, "config: migrations is {}; it must be a list of tables."),
            ({"durable_objects": {"bindings": 1}}, "durable_objects.bindings is 1; it must be a list"),
            ({"triggers": "x"}, "config: triggers is 'x'; it must be a table."),
            ({"name": 5}, "config: name is 5; it must be a text."),
            ({"cfqueue": 5}, "config: cfqueue is 5; it must be a table."),
        ],
    )
    def test_a_wrong_shape_names_the_key(self, data: dict[str, Any], text: str) -> None:
        assert text in error_of(data)

    def test_the_tables_we_keep_are_copies(self) -> None:
        data: dict[str, Any] = {"vars": {"LIST": [1]}, "kv_namespaces": [{"binding": "KV", "id": "x"}]}
        config = loaded(data)
        data["vars"]["LIST"].append(2)
        assert config.vars == {"LIST": [1]}
        assert config.kv_namespaces == ({"binding": "KV", "id": "x"},)

    def test_something_else_is_not_a_configuration(self) -> None:
        with pytest.raises(ConfigurationError, match="config is a int; it must be a path, a mapping or"):
            load(5, environ={})  # type: ignore[arg-type]
