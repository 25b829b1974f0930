"""How Sphinx builds the documentation: ``make docs``."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(ROOT)]

from odingw import __version__  # noqa: E402  -- found by the path above

project = "odingw"
author = "the odingw authors"
project_copyright = author
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "command_line",
    "config_reference",
    "error_tables",
    "figures",
    "http_paths",
    "inline_svg",
    "metrics_reference",
    "plain_links",
    "rpc_methods",
    "short_names",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
root_doc = "index"
language = "en"
# Blocks without a language are shell sessions and fragments, which no lexer should guess at.
highlight_language = "none"
smartquotes = False

nitpicky = True
# Documentation of other projects is not fetched: a build needs no network.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(?:collections|datetime|twisted|msgspec|requests|treq|zope|pathlib|typing|types|enum)\..*",
    ),
    # Type variables.
    (r"py:.*", r"(?:odingw\..*\.)?[A-Z]"),
    # Names that are imported for type checkers alone.
    (r"py:.*", r"(?:Callable|Mapping|Sequence|Iterable|Awaitable|UnsetType|Deferred|Path)"),
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"
copybutton_here_doc_delimiter = "END"

html_theme = "furo"
html_title = f"odingw {release}"
html_static_path = ["_static"]
html_css_files = ["odingw.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options: dict[str, object] = {"top_of_page_buttons": []}

man_pages = [
    ("command", "odingw", "operate an odingw voice gateway", author, 1),
    ("twistd", "twistd-odingw", "ODIN voice gateway and TURN REST server", author, 8),
]
