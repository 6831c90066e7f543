"""Prometheus's own Python reader reads both forms of the metrics page of a running xebec.

Run by e2e/tests/it/trace.rs with XEBEC_METRICS and the trace identity of one request for the model scaler.
"""

import os
import unittest
import urllib.request

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

URL = f"http://{os.environ['XEBEC_METRICS']}/metrics"
TRACE = os.environ["XEBEC_TRACE"]

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def page(accept: str) -> tuple[str, str]:
    request = urllib.request.Request(URL, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


class Metrics(unittest.TestCase):
    def test_openmetrics_is_read_and_has_the_request_as_an_example(self):
        kind, text = page(OPENMETRICS)
        self.assertEqual(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8")
        families = {family.name: family for family in openmetrics.text_string_to_metric_families(text)}
        for phase in ("decode", "queue", "compute", "encode", "request"):
            samples = families[f"xebec_serve_{phase}_duration_seconds"].samples
            shown = [s.exemplar for s in samples if s.labels["model"] == "scaler" and s.exemplar]
            self.assertEqual([one.labels["trace_id"] for one in shown], [TRACE], phase)
            self.assertGreater(float(shown[0].timestamp), 1_700_000_000)
        self.assertEqual(families["nv_inference_request_success"].type, "unknown")
        self.assertEqual(families["xebec_serve_traces"].type, "counter")

    def test_both_forms_have_the_same_samples(self):
        def names(families) -> set:
            # The older form has a bucket's bound as another text, and its reader adds _total to counters without it.
            labels = [
                (s.name.removesuffix("_total"), frozenset((k, float(v) if k == "le" else v) for k, v in s.labels.items()))
                for family in families
                for s in family.samples
            ]
            return set(labels)

        kind, text = page("text/plain")
        self.assertEqual(kind, "text/plain; version=0.0.4; charset=utf-8")
        self.assertNotIn("trace_id", text)
        old = names(parser.text_string_to_metric_families(text))
        new = names(openmetrics.text_string_to_metric_families(page(OPENMETRICS)[1]))
        self.assertEqual(old, new)


if __name__ == "__main__":
    unittest.main()
