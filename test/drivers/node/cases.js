// Calls every kind of function of the extension through node-postgres.
//
// Run by test/drivers/run with PORT, DATABASE, ROUTE (direct or pgbouncer) and NAMED (1 where
// named prepared statements work). Prints a line for each case.
'use strict'
const assert = require('node:assert/strict')
const { Client, escapeIdentifier } = require('pg')
const casts = require('./casts.js')

const { PORT, DATABASE, ROUTE, NAMED } = process.env
const URL = `postgresql://app@127.0.0.1:${PORT}/${DATABASE}`
const UNKNOWN = '00000000-0000-8000-8000-000000000000'

const MODES = {
  'node-pg untyped': (text, values) => ({ text, values })
}
if (NAMED === '1') {
  const names = new Map() // one name for each text, as an application would have it
  MODES['node-pg prepared'] = (text, values) => {
    if (!names.has(text)) names.set(text, 's' + names.size)
    return { name: names.get(text), text, values }
  }
}

// A connection and a queue of its own, and what every case needs with them.
class Case {
  static async open(shape, queue) {
    const c = new Case()
    c.shape = shape
    c.queue = queue
    c.view = 'queues.' + escapeIdentifier(queue)
    c.client = new Client({ connectionString: URL })
    await c.client.connect()
    return c
  }

  async rows(text, ...values) { return (await this.client.query(this.shape(text, values))).rows }
  async value(text, ...values) { return Object.values((await this.rows(text, ...values))[0])[0] }
  enqueue(payload) { return this.value('SELECT queue.enqueue($1, $2)', this.queue, JSON.stringify(payload)) }
  dequeue(count = 1, queue = this.queue, wait = '0') {
    return this.rows(
      'SELECT * FROM queue.dequeue($1, $2, wait => $3)', queue, count, wait)
  }

  async transaction(work) {
    await this.client.query('BEGIN')
    try {
      await work()
      await this.client.query('COMMIT')
    } catch (error) {
      await this.client.query('ROLLBACK')
      throw error
    }
  }

  async fails(state, text, ...values) {
    await assert.rejects(this.rows(text, ...values), (error) => {
      assert.equal(error.code, state, error.message)
      return true
    })
  }

  count() { return this.value('SELECT count(*)::int FROM ' + this.view) }
}

class Undo extends Error {}
const undone = (error) => { if (!(error instanceof Undo)) throw error }

const CASES = {
  async 'the casts of the documentation'(c) {
    await casts.produce(c.client, c.queue)
    assert.equal(await c.value(`SELECT count(*)::int FROM ${c.view} WHERE state = 'delayed'`), 2)
    const messages = await casts.consume(c.client, c.queue)
    assert.equal(messages.filter((m) => m.payload && m.payload.order_id === 1).length, 5)
    assert.deepEqual(messages.filter((m) => m.body).map((m) => m.body.toString('hex')).sort(),
      ['00ff', '00ff', '01'])
    assert.equal(await c.count(), 2)
  },

  async 'an array or a bare string is not a JSON payload'(c) {
    await c.fails('22P02', 'SELECT queue.enqueue($1, $2)', c.queue, [1, 2])
    await c.fails('22P02', 'SELECT queue.enqueue($1, $2)', c.queue, 'text')
    await c.rows('SELECT queue.enqueue($1, $2)', c.queue, JSON.stringify([1, 2]))
    await c.rows('SELECT queue.enqueue($1, $2)', c.queue, JSON.stringify('text'))
    assert.deepEqual((await c.dequeue(10)).map((m) => m.payload), [[1, 2], 'text'])
  },

  async 'an enqueue rolled back leaves nothing'(c) {
    await c.transaction(async () => { await c.enqueue({ n: 1 }); throw new Undo() }).catch(undone)
    await c.transaction(async () => {
      await c.enqueue({ n: 2 })
      assert.deepEqual(await c.dequeue(), []) // never to the transaction that enqueued it
    })
    assert.deepEqual((await c.dequeue(10)).map((m) => m.payload), [{ n: 2 }])
  },

  async 'the same statement twenty times'(c) {
    const sent = []
    for (let n = 0; n < 20; n++) sent.push(await c.enqueue({ n }))
    assert.equal(new Set(sent).size, 20)
    const seen = []
    for (let n = 0; n < 20; n++) {
      const [message] = await c.dequeue()
      seen.push(message.payload.n)
      await c.rows('SELECT queue.ack($1)', message.receipt)
    }
    assert.deepEqual(seen, [...Array(20).keys()])
    assert.deepEqual(await c.dequeue(), [])
  },

  async 'the ack commits with the work'(c) {
    await c.enqueue({ n: 1 })
    const [message] = await c.dequeue()
    const work = async () => {
      await c.rows('INSERT INTO work VALUES ($1, $2)', c.queue, message.id)
      await c.rows('SELECT queue.ack($1)', message.receipt)
    }
    const done = () => c.value('SELECT count(*)::int FROM work WHERE queue = $1', c.queue)
    await c.transaction(async () => { await work(); throw new Undo() }).catch(undone)
    assert.equal(await done(), 0)
    assert.deepEqual(await c.dequeue(), []) // the lease outlived the rollback
    await c.transaction(work)
    assert.equal(await done(), 1)
    assert.equal(await c.count(), 0)
  },

  async 'nack retries until the message is dead'(c) {
    await c.rows('SELECT queue.alter($1, $2)', c.queue, { max_attempts: 2 })
    await c.enqueue({ n: 1 })
    let [message] = await c.dequeue()
    assert.equal(await c.value('SELECT queue.nack($1, $2, $3)', message.receipt, 'first', '0'), 'retry')
    ;[message] = await c.dequeue(1, c.queue, '5 s')
    assert.equal(message.attempt, 2)
    assert.equal(message.last_error, 'first')
    assert.equal(await c.value('SELECT queue.nack($1, $2)', message.receipt, 'second'), 'dead')
    assert.deepEqual(await c.dequeue(), [])
    const [dead] = await c.dequeue(1, c.queue + '_dead', '5 s')
    assert.deepEqual(dead.payload, { n: 1 })
    assert.equal(dead.headers['queue.death'].queue, c.queue)
  },

  async 'release, extend and reject'(c) {
    await c.enqueue({ n: 1 })
    let [message] = await c.dequeue()
    const deadline = await c.value('SELECT queue.extend($1, $2)', message.receipt, '10 min')
    assert.ok(deadline instanceof Date && deadline > message.lease_until)
    await c.rows('SELECT queue.release($1)', message.receipt)
    ;[message] = await c.dequeue(1, c.queue, '5 s')
    assert.equal(message.attempt, 1)
    await c.rows('SELECT queue.reject($1, $2)', message.receipt, 'no use')
    assert.deepEqual(await c.dequeue(), [])
    assert.equal((await c.dequeue(1, c.queue + '_dead', '5 s')).length, 1)
  },

  async 'statuses of the batch calls'(c) {
    await c.rows('SELECT queue.enqueue_batch($1, $2)', c.queue, ['1', '2', '3'])
    const [one, two, three] = (await c.dequeue(3)).map((m) => m.receipt)
    for (const [call, receipt] of [['extend_batch', one], ['release_batch', one], ['nack_batch', two], ['try_ack', three]]) {
      const [good, bad] = (await c.rows(`SELECT status FROM queue.${call}($1)`, [receipt, UNKNOWN])).map((r) => r.status)
      assert.ok(!['lost', 'invalid'].includes(good), `${call}: ${good}`)
      assert.ok(['lost', 'invalid'].includes(bad), `${call} of an unknown receipt: ${bad}`)
    }
    await c.fails('QU001', 'SELECT queue.ack_batch($1)', [UNKNOWN])
  },

  async 'a lost lease is QU001'(c) {
    await c.enqueue({ n: 1 })
    const [message] = await c.dequeue()
    await c.rows('SELECT queue.release($1)', message.receipt)
    await c.transaction(async () => {
      await c.rows('INSERT INTO work VALUES ($1, $2)', c.queue, message.id)
      await c.fails('QU001', 'SELECT queue.ack($1)', message.receipt)
      throw new Undo()
    }).catch(undone)
    assert.equal(await c.value('SELECT count(*)::int FROM work WHERE queue = $1', c.queue), 0)
    await c.fails('QU001', 'SELECT queue.nack($1, $2)', message.receipt, 'late')
    await c.fails('QU001', 'SELECT queue.extend($1, $2)', message.receipt, '1 s')
  },

  async 'other errors have their SQLSTATE'(c) {
    await c.fails('42704', 'SELECT queue.enqueue($1, $2)', 'no such queue', {})
    await c.fails('42710', 'SELECT queue.create($1)', c.queue)
    await c.fails('22023', 'SELECT queue.enqueue($1, $2, delay => $3)', c.queue, {}, '-1 s')
    await c.fails('22023', 'SELECT * FROM queue.dequeue($1, $2)', c.queue, 0)
    await c.fails('22004', 'SELECT queue.enqueue($1, $2)', c.queue, null)
  },

  async 'dequeue waits'(c) {
    const other = await Case.open(c.shape, c.queue)
    const waiting = other.dequeue(1, c.queue, '5 s')
    await c.enqueue({ n: 1 })
    const messages = await waiting
    await other.client.end()
    assert.deepEqual(messages.map((m) => m.payload), [{ n: 1 }])
  },

  async 'CALL queue.wait'(c) {
    assert.deepEqual(await c.dequeue(), [])
    assert.equal(await c.value('CALL queue.wait($1, $2)', c.queue, '0 s'), false)
    await c.enqueue({ n: 1 })
    assert.equal(await c.value('CALL queue.wait($1, $2)', c.queue, '5 s'), true)
    await c.client.query('BEGIN')
    await c.fails('25001', 'CALL queue.wait($1, $2)', c.queue, '1 s')
    await c.client.query('ROLLBACK')
  },

  async 'INSERT into the view'(c) {
    const sent = await c.value(`INSERT INTO ${c.view} (payload, key) VALUES ($1, $2) RETURNING id`, { n: 1 }, 'k')
    const [message] = await c.dequeue()
    assert.equal(message.id, sent)
  },

  async 'pop'(c) {
    await c.enqueue({ n: 1 })
    await c.transaction(async () => {
      assert.equal((await c.rows('SELECT id FROM queue.pop($1)', c.queue)).length, 1)
      throw new Undo()
    }).catch(undone)
    const [message] = await c.dequeue(1, c.queue, '5 s')
    assert.equal(message.attempt, 2) // the rollback counts as a failure
    await c.rows('SELECT queue.ack($1)', message.receipt)
  },

  async 'LISTEN is notified'(c) {
    if (ROUTE !== 'direct') return
    const note = new Promise((resolve) => c.client.once('notification', resolve))
    await c.client.query('LISTEN ' + escapeIdentifier('queue_' + c.queue))
    const other = await Case.open(c.shape, c.queue)
    await other.enqueue({ n: 1 })
    await other.client.end()
    const late = new Promise((resolve, reject) => setTimeout(reject, 10000, new Error('no notification')).unref())
    const { channel, payload } = await Promise.race([note, late])
    assert.deepEqual({ channel, payload }, { channel: 'queue_' + c.queue, payload: c.queue })
  }
}

async function main() {
  let failed = 0
  for (const [mode, shape] of Object.entries(MODES)) {
    let number = 0
    for (const [name, run] of Object.entries(CASES)) {
      const queue = `${mode} ${ROUTE} ${number++}`
      const label = `${mode}, ${ROUTE}: ${name}`
      const c = await Case.open(shape, queue)
      try {
        await c.rows('SELECT queue.create($1)', queue)
        await run(c)
        await c.rows('SELECT queue.drop($1, true)', queue)
        console.log('ok     ' + label)
      } catch (error) {
        failed++
        console.log('FAILED ' + label)
        console.log(error)
      } finally {
        await c.client.end()
      }
    }
  }
  process.exitCode = failed > 0 ? 1 : 0
}

main()
