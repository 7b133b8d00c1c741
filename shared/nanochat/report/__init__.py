"""One page about a run, from what its jobs have written and its checkpoints say; of an unfinished or failed run too.

history.py    what one job has said
run.py        which jobs and checkpoints make a run
content.py    what the page says: stages beside each other, then each by itself (stage_section.py), cost, environment
figures.py    which metrics are drawn, and how
document.py   blocks of a page: text, tables, charts, samples
markdown.py   the page as Markdown
html.py       the page as HTML, with charts (drawing.py) and page.css
writing.py    both files under reports/<run>/
"""
