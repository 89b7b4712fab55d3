"""The OpenVINO engine.

`engine` compiles a program: `convert` makes it an openvino.Model, by `build` and its `table`
(filled by `arithmetic`, `shapes`, `pieces`, `resize`, `masks` and `sizes`) or by `frontend`, and
`compiled` runs it. `faults` knows what OpenVINO computes wrongly, and `build` avoids it. A model
that cannot be converted as a whole is cut into segments by `partition`. `profile` reads OpenVINO's
times of each operator.
"""
