"""What a chat template may do with its texts, and still be rendered once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from bge_rerank_integrations.engine.tokenization.fixed_parts import fixed_parts

EACH = "{% for m in messages %}"
END = "{% endfor %}"
FIXED = [
    "{{ messages[0].content }}|{{ messages[1].content }}",
    "D {{ messages[1].content }} Q {{ messages[0].content }}",
    EACH + "{{ '<' + m['role'] + '>' + m['content'] + '</>' }}" + END,
    EACH + "{% if m.content is string %}{{ m.content }};{% endif %}" + END,
    '{{ (messages | selectattr("role", "eq", "query") | first).content }} in '
    '{{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}',
    "{% set ns = namespace(q='') %}" + EACH + "{% if m.role == 'query' %}{% set ns.q = m.content %}"
    "{% endif %}" + END + "{{ ns.q }}\n{{ messages[1].content }}",
    "{% set t = 'x' + messages[0].content + 'y' %}{{ t }}{{ messages[1].content }}",
]
DEPENDENT = [
    EACH + "{{ m.content | trim }}" + END,
    EACH + "{{ ('a' + m.content) | trim }}" + END,
    EACH + "{{ ('a' ~ m.content) | trim }}" + END,
    EACH + "{% if m.content %}{{ m.content }}{% endif %}" + END,
    EACH + "{% if m.content == 'x' %}!{% endif %}{{ m.content }}" + END,
    EACH + "{% if 'x' in m.content %}!{% endif %}{{ m.content }}" + END,
    EACH + "{% if m.content is lower %}!{% endif %}{{ m.content }}" + END,
    EACH + "{% if m.content | length > 3 %}!{% endif %}{{ m.content }}" + END,
    EACH + "{% set x %}{{ m.content }}{% endset %}{{ x | upper }}" + END,
    EACH + "{% set x %}{{ m.content }}{% endset %}{% if x %}!{% endif %}{{ m.content }}" + END,
    EACH + "{% if ('a' ~ m.content) == 'ax' %}!{% endif %}{{ m.content }}" + END,
    EACH + "{% if ('%s' % m.content) == 'x' %}!{% endif %}{{ m.content }}" + END,
    EACH + "{{ m.content[:5] }}" + END,
    EACH + "{{ m.content | tojson }}" + END,
    EACH + "{{ m.content.strip() }}" + END,
    EACH + "{{ m.content * 2 }}" + END,
    "{% macro f(x) %}{{ x }}{% endmacro %}" + EACH + "{{ f(m.content)[:3] }}" + END,
    "{% for m in messages | sort(attribute='content') %}{{ m.content }}" + END,
    "{% if messages[0].content > messages[1].content %}!{% endif %}"
    + EACH
    + "{{ m.content }}"
    + END,
    "{{ messages[messages[0].content] }}{{ messages[0].content }}{{ messages[1].content }}",
    "{{ [messages[0].content] }}{{ messages[1].content }}",
    "{{ strftime_now('%S') }}" + EACH + "{{ m.content }}" + END,
    EACH + "{{ m.content }}{{ m.content }}" + END,
    "{{ messages[0].content }}",
]


def messages(query: str, document: str) -> list[dict[str, Any]]:
    return [{"role": "query", "content": query}, {"role": "document", "content": document}]


@pytest.mark.parametrize("template", FIXED)
@settings(max_examples=20, deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_a_template_that_hands_its_texts_on_is_rendered_once(
    template: str, query: str, document: str
) -> None:
    parts = fixed_parts(template, {}, messages)
    assert parts is not None
    ((expected,), _) = render_jinja_template([messages(query, document)], chat_template=template)
    assert parts.render(query, document) == expected


@pytest.mark.parametrize("template", DEPENDENT)
def test_a_template_that_looks_at_its_texts_is_rendered_for_each_pair(template: str) -> None:
    assert fixed_parts(template, {}, messages) is None


def test_variables_stand_in_the_parts() -> None:
    template = "{{ bos_token }}" + EACH + "{{ m.content }}" + END + "{{ add_generation_prompt }}"
    parts = fixed_parts(template, {"bos_token": "<s>"}, messages)
    assert parts is not None
    assert parts.texts == ("<s>", "", "False")
    parts = fixed_parts(template, {"add_generation_prompt": True}, messages)
    assert parts is not None
    assert parts.texts == ("", "", "True")
