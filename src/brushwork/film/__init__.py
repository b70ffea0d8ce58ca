"""A small drawn film: pictures to try everything on, with captions and a truth that are exact.

```python
from brushwork.film.captions import caption
from brushwork.film.frames import draw_array, draw_folder, draw_scene
from brushwork.film.held_out import is_held_out
from brushwork.film.scene import cast_without_lead, classes, imagine

scene = imagine(7, characters=cast_without_lead(), accept=lambda scene: not is_held_out(scene))
draw_array(scene)        # (128, 128, 3), the same numbers on every machine
caption(scene, seed=3)   # one of many phrasings; caption(scene): everything, always in the same words
classes(scene)           # {"character": 4, "place": 2, ...}: positions in scene.ATTRIBUTES

draw_folder(folder, 24, style="flat")              # of the lead, captions beside them, truth.jsonl
draw_film(folder, 5000, seed=1)                    # shots.py: as a camera gives it, some of it spoiled
```
"""
