// Command verdicts says what other tools make of an object's status.
//
// It reads {"script": LUA, "objects": [OBJECT…]} and writes one verdict an object: that of kstatus, which Flux and
// kpt go by, and that of the script as Argo CD runs it, by the same Lua engine.
package main

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type question struct {
	Script  string           `json:"script"`
	Objects []map[string]any `json:"objects"`
}

type said struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type verdict struct {
	Kstatus said `json:"kstatus"`
	Argo    said `json:"argo"`
}

func main() {
	log.SetFlags(0)
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	// As Kubernetes' clients read objects: whole numbers stay whole.
	var asked question
	if err := utiljson.Unmarshal(text, &asked); err != nil {
		log.Fatal(err)
	}
	verdicts := []verdict{}
	for _, object := range asked.Objects {
		computed, err := status.Compute(&unstructured.Unstructured{Object: object})
		if err != nil {
			log.Fatal(err)
		}
		health, err := run(asked.Script, object)
		if err != nil {
			log.Fatal(err)
		}
		verdicts = append(verdicts, verdict{said{computed.Status.String(), computed.Message}, health})
	}
	if err := json.NewEncoder(os.Stdout).Encode(verdicts); err != nil {
		log.Fatal(err)
	}
}

// run gives the script the object as `obj` and takes the table that it returns, as Argo CD does; of Lua's
// libraries there are those that Argo CD opens.
func run(script string, object map[string]any) (said, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName:   lua.OpenPackage,
		lua.BaseLibName:   lua.OpenBase,
		lua.TabLibName:    lua.OpenTable,
		lua.StringLibName: lua.OpenString,
		lua.MathLibName:   lua.OpenMath,
	} {
		call := lua.P{Fn: state.NewFunction(open), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(name)); err != nil {
			return said{}, err
		}
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return said{}, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return said{}, errors.New("the script does not return a table")
	}
	return said{
		lua.LVAsString(table.RawGetString("status")),
		lua.LVAsString(table.RawGetString("message")),
	}, nil
}

func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case bool:
		return lua.LBool(from)
	case int64:
		return lua.LNumber(from)
	case float64:
		return lua.LNumber(from)
	case string:
		return lua.LString(from)
	case []any:
		table := state.NewTable()
		for _, each := range from {
			table.Append(value(state, each))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, each := range from {
			table.RawSetString(key, value(state, each))
		}
		return table
	}
	return lua.LNil
}
